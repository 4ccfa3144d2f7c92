//! What each page is made of: looks at the process, and reports of them. Reports are made beside, in threads for that,
//! and only so many at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::answer::{self, Answered, BINARY, HTML, JSON, Made, SVG, TEXT};
use super::route::{Extra, Form, NoPage, Page};
use super::{Depth, Sources, ended, index};
use crate::profile::{Profile, Window, goroutines::Goroutines};
use crate::report::goroutines::{self, Profiled, Which};
use crate::report::pprof::{self, First, Written};
use crate::report::{self, Format, View};

/// Most answers that are made, or are on their way, at the same time.
const ROOM: usize = 16;

const NO_COLLECTION: &str = "gc=1 was not done: leaktrace does not make the process do anything";
const CUT_SHORT: &str = "shorter than asked for: the trace ended";

/// The pages of a session.
pub(super) struct Pages {
    sources: Sources,
    address: SocketAddr,
    room: Arc<Semaphore>,
}

/// What there is, or why not.
type OrRefused<T> = Result<T, NoPage>;

impl Pages {
    /// Of what is served at `address`.
    pub(super) fn new(sources: Sources, address: SocketAddr) -> Self {
        Self {
            sources,
            address,
            room: Arc::new(Semaphore::new(ROOM)),
        }
    }

    /// Becomes true when the session ends.
    pub(super) fn ending(&self) -> watch::Receiver<bool> {
        self.sources.ending.clone()
    }

    /// The answer to HEAD.
    pub(super) fn head(page: Page) -> Answered {
        match page {
            Page::Elsewhere => answer::elsewhere(),
            Page::Index => answer::head(HTML),
            Page::Heap(_, Form::Text(_)) | Page::Goroutines(_, Form::Text(_)) | Page::CommandLine => answer::head(TEXT),
            Page::Heap(..) | Page::Goroutines(..) => answer::head(BINARY),
            Page::Saved => answer::head(JSON),
            Page::FlameGraph => answer::head(SVG),
        }
    }

    /// The answer to GET, asked for at `host`, if that was said.
    pub(super) async fn get(&self, page: Page, extra: Extra, host: Option<&str>) -> Answered {
        let note = extra.collection.then_some(NO_COLLECTION);
        let made = match page {
            Page::Elsewhere => return answer::elsewhere(),
            Page::Index => self.index(host).await,
            Page::Heap(first, form) => self.heap(first, form, note).await,
            Page::Goroutines(which, form) => self.goroutines(which, form, note).await,
            Page::CommandLine => self.command_line(),
            Page::Saved => self.report(Format::Json, JSON).await,
            Page::FlameGraph => self.report(Format::Svg, SVG).await,
        };
        made.unwrap_or_else(|no| answer::no_page(&no))
    }

    async fn index(&self, host: Option<&str>) -> OrRefused<Answered> {
        let (heap, goroutines) = tokio::join!(
            self.sources.heap.ask(Depth::Brief),
            self.sources.goroutines.ask(Which::All)
        );
        let host = host.map_or_else(|| self.address.to_string(), str::to_owned);
        let page = index::page(self.sources.pid, &host, &heap, &goroutines);
        Ok(Made::plain(HTML, page.into_bytes()).answer(None))
    }

    fn command_line(&self) -> OrRefused<Answered> {
        let gone = || NoPage(503, "the process has ended: its command line is gone".to_owned());
        let mut arguments = (self.sources.command_line)().ok_or_else(gone)?;
        // Go puts the zero byte between arguments.
        if arguments.last() == Some(&0) {
            arguments.pop();
        }
        Ok(Made::plain(TEXT, arguments).answer(None))
    }

    async fn report(&self, format: Format, kind: &'static str) -> OrRefused<Answered> {
        let depth = if format == Format::Json {
            Depth::Full
        } else {
            Depth::Brief
        };
        let profile = self.profile(depth).await?;
        self.make(move |out| {
            report::report(format).write(&profile, &View::default(), out)?;
            Ok(Made::plain(kind, Vec::new()))
        })
        .await
    }

    async fn heap(&self, first: First, form: Form, note: Option<&'static str>) -> OrRefused<Answered> {
        let name = match first {
            First::InUse => "heap",
            First::Allocated => "allocs",
        };
        if let Form::Change(time) = form {
            let before = self.profile(Depth::Brief).await?;
            let note = self.wait(time).await.or(note);
            let after = self.profile(Depth::Brief).await?;
            same_program(before.window, after.window)?;
            return self
                .make(move |out| {
                    let since = Some(&*before);
                    pprof::write(&after, &Written { first, since, note }, out)?;
                    Ok(file(format!("{name}-delta"), note))
                })
                .await;
        }
        let profile = self.profile(Depth::Brief).await?;
        self.make(move |out| {
            if form == Form::Binary {
                pprof::write(
                    &profile,
                    &Written {
                        first,
                        since: None,
                        note,
                    },
                    out,
                )?;
                return Ok(file(name.to_owned(), note));
            }
            pprof::write_text(&profile, note, out)?;
            Ok(text(note))
        })
        .await
    }

    async fn goroutines(&self, which: Which, form: Form, note: Option<&'static str>) -> OrRefused<Answered> {
        let name = which.name();
        if let Form::Change(time) = form {
            let before = self.look(which).await?;
            let note = self.wait(time).await.or(note);
            let after = self.look(which).await?;
            same_program(before.window, after.window)?;
            return self
                .make(move |out| {
                    let since = Some(&*before);
                    goroutines::write_pprof(&after, &Profiled { which, since, note }, out)?;
                    Ok(file(format!("{name}-delta"), note))
                })
                .await;
        }
        let look = self.look(which).await?;
        self.make(move |out| match form {
            Form::Text(1) => {
                goroutines::write_counts(&look, which, note, out)?;
                Ok(text(note))
            }
            Form::Text(_) => {
                goroutines::write_traces(&look, out)?;
                Ok(text(note))
            }
            Form::Binary | Form::Change(_) => {
                goroutines::write_pprof(
                    &look,
                    &Profiled {
                        which,
                        since: None,
                        note,
                    },
                    out,
                )?;
                Ok(file(name.to_owned(), note))
            }
        })
        .await
    }

    /// Waits; says so if the session ends before the time is over.
    async fn wait(&self, time: Duration) -> Option<&'static str> {
        let mut ending = self.ending();
        tokio::select! {
            () = sleep(time) => None,
            () = ended(&mut ending) => Some(CUT_SHORT),
        }
    }

    async fn profile(&self, depth: Depth) -> OrRefused<Arc<Profile>> {
        Ok(self.sources.heap.ask(depth).await?)
    }

    async fn look(&self, which: Which) -> OrRefused<Arc<Goroutines>> {
        Ok(self.sources.goroutines.ask(which).await?)
    }

    /// Has an answer made in a thread for that: `write` writes its body, and says what it is.
    async fn make(&self, write: impl FnOnce(&mut Vec<u8>) -> Result<Made> + Send + 'static) -> OrRefused<Answered> {
        let failed = |why: String| NoPage(500, why);
        let room: OwnedSemaphorePermit = Arc::clone(&self.room)
            .acquire_owned()
            .await
            .map_err(|closed| failed(closed.to_string()))?;
        let made = spawn_blocking(move || {
            let mut bytes = Vec::new();
            let made = write(&mut bytes)?;
            Ok(Made { bytes, ..made }.answer(Some(room)))
        });
        let made: Result<Answered> = made.await.map_err(|error| failed(error.to_string()))?;
        made.map_err(|error| failed(format!("{error:#}")))
    }
}

fn file(name: String, note: Option<&'static str>) -> Made {
    Made {
        file: Some(name),
        note,
        ..Made::plain(BINARY, Vec::new())
    }
}

fn text(note: Option<&'static str>) -> Made {
    Made {
        note,
        ..Made::plain(TEXT, Vec::new())
    }
}

/// What two programs have, one after the other in one process, cannot be subtracted.
fn same_program(before: Window, after: Window) -> OrRefused<()> {
    if before.start_unix_ns == after.start_unix_ns {
        return Ok(());
    }
    Err(NoPage(
        503,
        "the process has become another program in that time, and there is no difference between two: ask again"
            .to_owned(),
    ))
}
