//! Starts programs that end with this process, even when it is killed by SIGKILL.
//!
//! The kernel's parent-death signal does that, with two traps. It is sent when the *thread* that started the program
//! ends, and the threads of an async runtime come and go: so one thread of our own starts every program, and lives as long as any
//! of them. And it is cleared when a process changes its user: so it is set after that.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{self, Signal};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, getpid, getppid};
use tokio::sync::oneshot;

use super::error::Error;

/// What a program is sent when this process dies. SIGQUIT is PostgreSQL's immediate shutdown: it is gone within moments, whatever its
/// backends were doing, and the next start recovers from the write-ahead log. `initdb` ends by it too.
const PARENT_DEATH_SIGNAL: Signal = Signal::SIGQUIT;

/// What asks a program to end when nobody is interested in it any more: PostgreSQL's fast shutdown.
const ABANDONED_SIGNAL: Signal = Signal::SIGINT;

struct Request {
    command: Command,
    reply: oneshot::Sender<io::Result<Process>>,
}

/// The thread that starts programs, one at a time.
#[derive(Debug)]
pub(super) struct Spawner {
    requests: mpsc::Sender<Request>,
    ended: oneshot::Receiver<()>,
}

impl Spawner {
    /// Starts the thread.
    pub(super) fn start() -> Result<Self, Error> {
        let (requests, receiver) = mpsc::channel::<Request>();
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("pg-parent".to_owned())
            .spawn(move || {
                for request in receiver {
                    serve(request);
                }
                // Whoever waits for this may have gone.
                let _unheard = end.send(());
            })
            .map_err(Error::system("start a thread for", "postgres"))?;
        Ok(Self { requests, ended })
    }

    /// Starts a program, once the one before has ended.
    pub(super) async fn spawn(&self, command: Command) -> Result<Process, Error> {
        let program = command.get_program().to_owned();
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(Request { command, reply })
            .map_err(|_unsent| Error::SpawnerGone)?;
        match answer.await {
            Ok(spawned) => spawned.map_err(Error::system("run", program)),
            Err(_closed) => Err(Error::SpawnerGone),
        }
    }

    /// Waits until every program that was started has ended.
    pub(super) async fn finish(self) {
        drop(self.requests);
        // An error means that the thread has ended too.
        let _ended = self.ended.await;
    }
}

/// Starts one program and waits for its end, all in this thread.
fn serve(request: Request) {
    let Request { mut command, reply } = request;
    // A group of its own: Ctrl-C in the terminal is for us alone, and we then stop PostgreSQL in our own time.
    command.process_group(0);
    end_with_parent(&mut command);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // Whoever asked may have gone.
            let _unheard = reply.send(Err(error));
            return;
        }
    };
    let (exit, exited) = oneshot::channel();
    let pid = child.id();
    let living = Arc::new(Mutex::new(i32::try_from(pid).ok().map(Pid::from_raw)));
    // Nobody waiting drops the process, and that asks it to end.
    drop(reply.send(Ok(Process {
        pid,
        living: Arc::clone(&living),
        exited,
    })));
    let status = reap(&mut child, &living);
    // Nobody may be listening any more.
    let _unheard = exit.send(status);
}

/// Waits for the program's end. It is known as dead before its process id is given back, so that no signal of
/// ours ever reaches another process that got the same id.
fn reap(child: &mut Child, living: &Mutex<Option<Pid>>) -> io::Result<ExitStatus> {
    let pid = *living.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pid) = pid {
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR)
        {
        }
    }
    *living.lock().unwrap_or_else(PoisonError::into_inner) = None;
    child.wait()
}

/// Makes the kernel end the program when the calling thread dies.
#[allow(
    unsafe_code,
    reason = "only code between fork and exec can set the parent-death signal"
)]
fn end_with_parent(command: &mut Command) {
    let parent = getpid();
    let in_child = move || {
        prctl::set_pdeathsig(PARENT_DEATH_SIGNAL)?;
        // The parent may have died before the signal was set, and then it never comes.
        if getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec of a process with several threads only async-signal-safe functions may be called. The closure
    // makes two system calls, allocates nothing and takes no lock. The standard library runs it after the change of the user.
    unsafe {
        command.pre_exec(in_child);
    }
}

/// A running program. Dropped, it is asked to end.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    living: Arc<Mutex<Option<Pid>>>,
    exited: oneshot::Receiver<io::Result<ExitStatus>>,
}

impl Process {
    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal, if it hasn't ended.
    pub(super) fn signal(&self, signal: Signal) {
        let living = self.living.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = *living {
            // It can only fail because the process is just ending.
            let _sent = signal::kill(pid, signal);
        }
    }

    /// Waits for its end. To be called again only if it was cancelled.
    pub(super) async fn exited(&mut self) -> Result<ExitStatus, Error> {
        match (&mut self.exited).await {
            Ok(status) => status.map_err(Error::system("wait for", "postgres")),
            Err(_closed) => Err(Error::SpawnerGone),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(ABANDONED_SIGNAL);
    }
}
