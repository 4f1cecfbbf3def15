//! A sample on its way to a page: each stream is assessed when it has been read, and its lines are written once its block is complete, while
//! Redis still works at the others.

use tokio::time::Instant;

use crate::analysis::assess::Assessor;
use crate::analysis::snapshot::StreamSnapshot;
use crate::exposition::series::{STREAMS_PER_BLOCK, SeriesWriter};
use crate::model::StreamKey;
use crate::model::sample::{ReadError, Sink, StreamSample};

/// What of a sample is there so far.
pub(super) struct SampleSink<'a> {
    assessor: &'a mut Assessor,
    lines: &'a mut SeriesWriter,
    /// From when the history counts.
    started: Instant,
    /// What each stream came to, in their order.
    done: Vec<AssessedStream>,
    /// How many of each block are still to come.
    missing: Vec<usize>,
    /// Blocks that are written.
    written: usize,
}

/// What a stream came to.
enum AssessedStream {
    NotYet,
    Gone,
    Assessed(StreamSnapshot),
}

impl AssessedStream {
    fn seen(&self) -> Option<&StreamSnapshot> {
        if let Self::Assessed(snapshot) = self { Some(snapshot) } else { None }
    }
}

impl<'a> SampleSink<'a> {
    pub(super) fn new(assessor: &'a mut Assessor, lines: &'a mut SeriesWriter, started: Instant) -> Self {
        Self { assessor, lines, started, done: Vec::new(), missing: Vec::new(), written: 0 }
    }

    /// The sample is complete. What every stream came to, in their order, those that are gone left out; from now on their lines
    /// hold.
    pub(super) fn end(self) -> Vec<StreamSnapshot> {
        self.lines.commit();
        let seen = |done| if let AssessedStream::Assessed(snapshot) = done { Some(snapshot) } else { None };
        self.done.into_iter().filter_map(seen).collect()
    }

    fn is_done(&mut self, at: usize, done: AssessedStream) {
        if matches!(self.done[at], AssessedStream::NotYet) {
            self.missing[at / STREAMS_PER_BLOCK] -= 1;
        }
        self.done[at] = done;
        while self.missing.get(self.written) == Some(&0) {
            let block = self.done.chunks(STREAMS_PER_BLOCK).nth(self.written).unwrap_or_default();
            self.lines.block(block.iter().filter_map(AssessedStream::seen));
            self.written += 1;
        }
    }
}

impl Sink for SampleSink<'_> {
    fn begin(&mut self, streams: &[StreamKey]) {
        self.assessor.follow_streams(streams);
        self.lines.begin();
        self.done.clear();
        self.done.resize_with(streams.len(), || AssessedStream::NotYet);
        self.missing = self.done.chunks(STREAMS_PER_BLOCK).map(<[AssessedStream]>::len).collect();
        self.written = 0;
    }

    fn stream(&mut self, at: usize, read: Result<StreamSample, ReadError>) {
        let snapshot = self.assessor.stream(at, read, self.started.elapsed());
        self.is_done(at, AssessedStream::Assessed(snapshot));
    }

    fn gone(&mut self, at: usize) {
        self.is_done(at, AssessedStream::Gone);
    }
}
