//! Imports that break off: by their client, their process, their database, their grant.

use super::*;

#[tokio::test]
async fn an_import_that_breaks_off_anywhere_is_continued_with_each_line_once() {
    const LINES: usize = 2_100;
    let text = long_text(LINES);
    let ends: Vec<usize> = text
        .bytes()
        .zip(1..)
        .filter(|(byte, _)| *byte == b'\n')
        .map(|(_, place)| place)
        .collect();
    let whole = World::new().await;
    let session = whole.begin("whole").await.unwrap();
    let results = session.results(0);
    let reference = session.run(body(&text)).await.unwrap();
    let (reference_lines, _) = read(results).await;
    let events = whole.count("outbox").await;

    let broken = World::new().await;
    let mut id = None;
    // Breaks before, at and after the ends of batches, and within a line.
    for (attempt, cut) in [
        0,
        10,
        ends[554],
        ends[554] + 9,
        ends[555] + 1,
        ends[1_200],
        ends[LINES - 2] + 3,
    ]
    .into_iter()
    .enumerate()
    {
        let session = broken.begin("key").await.unwrap();
        assert_eq!(session.is_continued(), attempt > 0);
        assert_eq!(*id.get_or_insert(session.import().id), session.import().id);
        let results = session.results(0);
        let pieces = body(&text[..cut])
            .map(|piece| piece.map_err(|never| match never {}))
            .chain(stream::iter([Err("connection reset")]));
        let interruption = session.run(pieces).await.unwrap_err();
        assert_eq!(interruption.reason, InterruptionReason::BodyFailed);
        let (lines, summary) = read(results).await;
        assert_eq!(summary.status, SummaryStatus::Interrupted);
        let whole_lines = ends.iter().take_while(|&&end| end <= cut).count();
        let expected: Vec<_> = numbers(&reference_lines)
            .into_iter()
            .filter(|&line| line <= i64::try_from(whole_lines).unwrap())
            .collect();
        assert_eq!(numbers(&lines), expected, "what had arrived is done");
    }
    let session = broken.begin("key").await.unwrap();
    let results = session.results(0);
    let import = session.run(body(&text)).await.unwrap();
    let (lines, _) = read(results).await;
    let comparable = |lines: &[LineResult]| -> Vec<_> {
        lines
            .iter()
            .map(|line| {
                (
                    line.line,
                    line.status,
                    line.external_id.clone(),
                    line.errors.clone(),
                )
            })
            .collect()
    };
    assert_eq!(comparable(&lines), comparable(&reference_lines));
    assert_eq!(
        (import.lines_done, import.created_count),
        (reference.lines_done, reference.created_count)
    );
    assert_eq!(
        (import.updated_count, import.failed_count),
        (reference.updated_count, reference.failed_count)
    );
    assert_eq!(
        broken.count("outbox").await,
        events,
        "nothing was announced twice"
    );
}

#[tokio::test]
async fn a_process_that_dies_between_any_two_batches_leaves_an_import_to_continue() {
    let text = long_text(4_000);
    let world = Arc::new(World::new().await);
    let mut done = Vec::new();
    for batches in 1.. {
        let session = world.begin("key").await.unwrap();
        let mut results = Box::pin(session.results(0));
        let work = tokio::spawn(session.run(body(&text)));
        // Killed once some batches are seen, at whatever it is doing then.
        let mut seen = Vec::new();
        while seen.len() < batches {
            let Some(piece) = results.next().await else {
                break;
            };
            seen.push(piece);
        }
        work.abort();
        let _ = work.await;
        seen.extend(results.collect::<Vec<_>>().await);
        let (lines, summary) = read(stream::iter(seen)).await;
        if summary.status == SummaryStatus::Completed {
            done = lines;
            break;
        }
        assert_eq!(
            summary.interruption.unwrap().reason,
            InterruptionReason::Stopped
        );
    }
    let expected: Vec<i64> = (1..=4_000).filter(|number| number % 10 != 7).collect();
    assert_eq!(numbers(&done), expected);
    assert_eq!(
        world.count("catalog_imports where attempt > 3").await,
        1,
        "it was killed several times"
    );
    assert_eq!(world.count("products").await, 4_000 / 10 * 7 + 1);
}

#[tokio::test]
async fn a_request_that_was_overtaken_commits_nothing_more() {
    let world = World::new().await;
    let old = world.begin("key").await.unwrap();
    let mut old_results = Box::pin(old.results(0));
    let (feed, pieces) = fed();
    let work = tokio::spawn(old.run(pieces));
    feed.send(Ok(line("A", "old").into())).unwrap();
    assert!(
        old_results
            .next()
            .await
            .unwrap()
            .starts_with(br#"{"line":1,"status":"created""#)
    );

    let new = world.begin("key").await.unwrap();
    assert_eq!(
        (new.import().id, new.import().lines_done),
        (new.import().id, 1)
    );
    feed.send(Ok([line("B", "old"), line("C", "old")].concat().into()))
        .unwrap();
    let last: SummaryLine = serde_json::from_slice(&old_results.next().await.unwrap())
        .expect("a summary, not a result");
    assert_eq!(
        last.summary.interruption.unwrap().reason,
        InterruptionReason::TakenOver
    );
    assert_eq!(old_results.next().await, None);
    let interruption = work.await.unwrap().unwrap_err();
    assert_eq!(interruption.reason, InterruptionReason::TakenOver);
    assert!(feed.is_closed(), "it reads no further");
    assert_eq!(
        world.count("products").await,
        1,
        "what the old request had done was rolled back"
    );

    let results = new.results(0);
    let text = [line("A", "old"), line("B", "new"), line("C", "new")].concat();
    new.run(body(&text)).await.unwrap();
    let (lines, _) = read(results).await;
    assert_eq!(numbers(&lines), [1, 2, 3]);
    assert!(lines.iter().all(|line| line.status == LineStatus::Created));
    assert_eq!(world.count("products where title = 'new'").await, 2);
}

#[tokio::test]
async fn an_import_stops_with_a_summary_while_the_database_is_away_and_can_be_continued() {
    let world = World::new().await;
    let mut away = importer(world.database.api(), &world.grants);
    away.patience = std::time::Duration::ZERO;
    let key = "key".parse().unwrap();
    let session = away
        .begin(&world.actor, &key, &CatalogImportParameters::default())
        .await
        .unwrap();
    let results = session.results(0);
    away.database.close().await;
    let interruption = session.run(body(&line("A", "1"))).await.unwrap_err();
    assert_eq!(interruption.reason, InterruptionReason::Unavailable);
    let (lines, summary) = read(results).await;
    assert_eq!(
        (lines.len(), summary.status),
        (0, SummaryStatus::Interrupted)
    );
    assert_eq!(
        summary.interruption.unwrap().reason,
        InterruptionReason::Unavailable
    );
    assert_eq!(
        world
            .begin("key")
            .await
            .unwrap()
            .run(body(&line("A", "1")))
            .await
            .unwrap()
            .created_count,
        1
    );
}

#[tokio::test]
async fn an_import_survives_connections_that_die_in_the_middle_of_its_batches() {
    let world = World::new().await;
    let mut owner = world.database.owner().await.unwrap();
    let session = world.begin("key").await.unwrap();
    let mut results = Box::pin(session.results(0));
    let mut work = tokio::spawn(session.run(body(&long_text(5_000))));
    let mut killed = 0;
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and application_name = 'stoa_api'";
    let mut seen = Vec::new();
    let import = loop {
        tokio::select! {
            biased;
            done = &mut work => break done.unwrap().unwrap(),
            Some(piece) = results.next() => {
                seen.push(piece);
                killed += sqlx::query(kill).fetch_one(&mut owner).await.unwrap().get::<i64, _>(0);
            }
        }
    };
    seen.extend(results.collect::<Vec<_>>().await);
    let (lines, summary) = read(stream::iter(seen)).await;
    assert!(killed > 0);
    assert_eq!(summary.status, SummaryStatus::Completed);
    assert_eq!(
        numbers(&lines),
        (1..=5_000)
            .filter(|number| number % 10 != 7)
            .collect::<Vec<i64>>()
    );
    assert_eq!(import.created_count, world.count("products").await);
    let announced = world
        .database
        .count("select count(*) from outbox where type = 'product.created'")
        .await
        .unwrap();
    assert_eq!(announced, import.created_count);
}

#[tokio::test]
async fn an_import_whose_grant_ends_or_is_narrowed_commits_nothing_more() {
    let narrowed = Access {
        scopes: "catalog:read".parse().unwrap(),
        ..Access::full()
    };
    for left in [None, Some(narrowed)] {
        let world = World::new().await;
        let session = world.begin("key").await.unwrap();
        let import = session.import().id;
        let mut results = Box::pin(session.results(0));
        let (sender, body) = fed();
        let running = tokio::spawn(session.run(body));
        sender.send(Ok(line("A", "a").into())).unwrap();
        let first = results.next().await.unwrap();
        assert!(first.starts_with(br#"{"line":1,"#), "{first:?}");

        world.grants.0.lock().unwrap().clone_from(&left);
        sender.send(Ok(line("B", "b").into())).unwrap();
        let interruption = running.await.unwrap().unwrap_err();
        assert_eq!(interruption.reason, InterruptionReason::GrantEnded);
        assert_eq!(world.count("products").await, 1);
        let (lines, summary) = read(results).await;
        assert!(lines.is_empty());
        assert_eq!(
            summary.interruption.unwrap().reason,
            InterruptionReason::GrantEnded
        );

        // What there is may be read again by who may read at all.
        let stored = world
            .importer
            .results(&world.actor, import, 0)
            .await
            .unwrap();
        let (lines, _) = read(stored).await;
        assert_eq!(lines.len(), usize::from(left.is_some()));
    }
}
