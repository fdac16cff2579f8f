//! Splitting a stream of bytes into lines, with bounded memory.

use bytes::{Buf, Bytes};

/// Bytes of one line at most; a longer one is skipped without being kept. A product with all that it may have fits.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// The byte order mark with which some spreadsheets begin a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line of input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// Nothing but white space.
    Blank,
    /// Something to read, without its line end.
    Text(Bytes),
    /// More than [`LINE_BYTES_MAX`].
    TooLong,
}

/// Splits chunks into lines. Keeps at most one unfinished line.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    unfinished: Vec<u8>,
    too_long: bool,
    finished: i64,
}

impl Splitter {
    /// How many lines have been given out: the number of the last one.
    pub(super) const fn lines(&self) -> i64 {
        self.finished
    }

    /// Takes the next line from `chunk`; `None` once the chunk is used up.
    pub(super) fn next(&mut self, chunk: &mut Bytes) -> Option<Line> {
        if let Some(end) = chunk.iter().position(|&byte| byte == b'\n') {
            let piece = chunk.split_to(end);
            chunk.advance(1);
            return Some(self.finish(piece));
        }
        self.keep(chunk);
        chunk.clear();
        None
    }

    /// The last line, if the input does not end with a line end.
    pub(super) fn end(&mut self) -> Option<Line> {
        let pending = self.too_long || !self.unfinished.is_empty();
        pending.then(|| self.finish(Bytes::new()))
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.too_long || self.unfinished.len() + piece.len() > LINE_BYTES_MAX {
            self.too_long = true;
            self.unfinished = Vec::new();
        } else {
            self.unfinished.extend_from_slice(piece);
        }
    }

    fn finish(&mut self, piece: Bytes) -> Line {
        self.finished += 1;
        let mut line =
            if self.unfinished.is_empty() && !self.too_long && piece.len() <= LINE_BYTES_MAX {
                piece
            } else {
                self.keep(&piece);
                Bytes::from(std::mem::take(&mut self.unfinished))
            };
        if std::mem::take(&mut self.too_long) {
            return Line::TooLong;
        }
        if self.finished == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.advance(BYTE_ORDER_MARK.len());
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            Line::Blank
        } else {
            Line::Text(line)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Line> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            let mut chunk = Bytes::copy_from_slice(chunk);
            while let Some(line) = splitter.next(&mut chunk) {
                lines.push(line);
            }
        }
        lines.extend(splitter.end());
        lines
    }

    fn text(line: &'static str) -> Line {
        Line::Text(Bytes::from_static(line.as_bytes()))
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        let input = b"\xef\xbb\xbf{1}\r\n\n  \n{2}\n\xef\xbb\xbf{3}";
        let expected = [
            text("{1}\r"),
            Line::Blank,
            Line::Blank,
            text("{2}"),
            text("\u{feff}{3}"),
        ];
        for size in 1..=input.len() {
            let chunks: Vec<_> = input.chunks(size).collect();
            assert_eq!(split(&chunks), expected, "in chunks of {size}");
        }
        assert_eq!(
            split(&[b"{1}\n", b""]),
            [text("{1}")],
            "a line end at the end begins no line"
        );
        assert_eq!(split(&[]), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_without_being_kept() {
        let piece = vec![b'x'; 64 * 1024];
        let mut splitter = Splitter::default();
        for _ in 0..1_000 {
            assert_eq!(splitter.next(&mut Bytes::copy_from_slice(&piece)), None);
            assert!(splitter.unfinished.capacity() <= 2 * LINE_BYTES_MAX);
        }
        let mut rest = Bytes::from_static(b"\n{2}\n");
        assert_eq!(splitter.next(&mut rest), Some(Line::TooLong));
        assert_eq!(splitter.next(&mut rest), Some(text("{2}")));
        assert_eq!(splitter.lines(), 2);

        let fits = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(
            split(&[&fits, b"\n"]),
            [Line::Text(Bytes::from(fits.clone()))]
        );
        assert_eq!(split(&[&fits, b"x"]), [Line::TooLong]);
        let over = [fits.as_slice(), b"x\n"].concat();
        assert_eq!(split(&[&over]), [Line::TooLong]);
    }
}
