//! The thread that symbolizes, and the only place that calls blazesym.
//!
//! Debug information comes from files of the target. What panics over it is caught here, what does not come back is
//! left behind by whoever waits, and the stack is large enough for deep nesting.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Once;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};

use super::demangle::demangle;
use super::image::Image;
use crate::target::printable;

/// Name of the thread; also tells its panics from others.
pub(super) const THREAD: &str = "symbols";
/// Address space for its stack; only what is touched takes memory.
const STACK_SIZE: usize = 64 << 20;

/// A function call at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Demangled name.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Source line.
    pub line: Option<u32>,
}

/// The calls at one address, innermost first: all but the last are inlined. Empty if nothing is known.
pub type Calls = Vec<Call>;

/// What is known of a batch of addresses.
#[derive(Debug, Default)]
pub struct Answer {
    /// For each address, in the order asked.
    pub calls: Vec<Calls>,
    /// How many addresses could not be looked up, because the file is damaged.
    pub failures: u64,
}

/// What was asked: virtual addresses of the file that `images` were made from, best image first.
struct Question {
    file: (u64, u64),
    images: Arc<[Image]>,
    offsets: Vec<u64>,
}

/// The thread that symbolizes.
pub struct Worker {
    questions: Sender<Question>,
    answers: Receiver<Answer>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start() -> std::io::Result<Self> {
        silence_panics();
        let (questions, to_answer) = channel::<Question>();
        let (answered, answers) = channel();
        let serve = move || {
            let mut sources = HashMap::new();
            for question in to_answer {
                let images = &question.images;
                let sources = sources
                    .entry(question.file)
                    .or_insert_with(|| (0..images.len()).map(|at| File::new(images, at)).collect::<Vec<_>>());
                if answered.send(answer(sources, &question.offsets)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name(THREAD.to_owned())
            .stack_size(STACK_SIZE)
            .spawn(serve)?;
        Ok(Self { questions, answers })
    }

    /// Symbolizes virtual addresses of `file`, from which `images` were made. `None` if there is no answer within
    /// `patience`: then the thread must be given up.
    pub fn ask(
        &self,
        file: (u64, u64),
        images: &Arc<[Image]>,
        offsets: Vec<u64>,
        patience: Duration,
    ) -> Option<Answer> {
        let question = Question {
            file,
            images: Arc::clone(images),
            offsets,
        };
        self.questions.send(question).ok()?;
        self.answers.recv_timeout(patience).ok()
    }
}

/// One image, and what blazesym has made of it.
struct File {
    images: Arc<[Image]>,
    at: usize,
    symbolizer: Symbolizer,
}

impl File {
    fn new(images: &Arc<[Image]>, at: usize) -> Self {
        let trusted = images.get(at).is_some_and(|image| image.trusted);
        Self {
            images: Arc::clone(images),
            at,
            symbolizer: new_symbolizer(trusted),
        }
    }

    /// Looks up `offsets`; `None` for what is not known, an error for what could not be looked up.
    fn look_up(&mut self, offsets: &[u64], debug_syms: bool) -> Result<Vec<Result<Option<Calls>, ()>>, ()> {
        let image = self.images.get(self.at).ok_or(())?;
        let mut elf = Elf::new(image.path());
        elf.debug_syms = debug_syms && image.has_debug;
        let source = Source::Elf(elf);
        let symbolizer = &self.symbolizer;
        let attempt = AssertUnwindSafe(|| {
            let found = symbolizer
                .symbolize(&source, Input::VirtOffset(offsets))
                .map_err(drop)?;
            Ok(found.iter().map(calls_of).collect())
        });
        catch_unwind(attempt).unwrap_or_else(|_panic| {
            // It may be in any state: not used again, and not even dropped.
            let fresh = new_symbolizer(image.trusted);
            std::mem::forget(std::mem::replace(&mut self.symbolizer, fresh));
            Err(())
        })
    }
}

fn new_symbolizer(trusted: bool) -> Symbolizer {
    // Demangling is done here: blazesym also demangles names that are not mangled.
    let builder = Symbolizer::builder().enable_demangling(false).enable_auto_reload(false);
    if trusted {
        return builder.build();
    }
    builder.set_debug_dirs(Some(std::iter::empty::<&str>())).build()
}

/// Asks each file for what those before it did not know.
fn answer(files: &mut [File], offsets: &[u64]) -> Answer {
    let mut calls = vec![Calls::new(); offsets.len()];
    let mut failures = 0;
    for file in files {
        let open: Vec<usize> = (0..offsets.len())
            .filter(|&at| calls.get(at).is_some_and(Vec::is_empty))
            .collect();
        let wanted: Vec<u64> = open.iter().filter_map(|&at| offsets.get(at).copied()).collect();
        let found = look_up_all(file, &wanted);
        for (at, found) in open.into_iter().zip(found) {
            failures += u64::from(found.is_err());
            if let (Some(slot), Ok(Some(found))) = (calls.get_mut(at), found) {
                *slot = found;
            }
        }
    }
    Answer { calls, failures }
}

/// All at once; what fails then is tried alone, and at last without debug information.
fn look_up_all(file: &mut File, offsets: &[u64]) -> Vec<Result<Option<Calls>, ()>> {
    let mut found = file
        .look_up(offsets, true)
        .unwrap_or_else(|()| vec![Err(()); offsets.len()]);
    found.resize(offsets.len(), Err(()));
    for (found, &offset) in found.iter_mut().zip(offsets).filter(|(found, _)| found.is_err()) {
        let mut alone = |debug_syms| {
            file.look_up(&[offset], debug_syms)
                .and_then(|mut one| one.pop().ok_or(())?)
        };
        *found = alone(true).or_else(|()| alone(false));
    }
    found
}

fn calls_of(found: &Symbolized<'_>) -> Result<Option<Calls>, ()> {
    match found {
        Symbolized::Sym(symbol) if symbol.name.is_empty() => Ok(None),
        Symbolized::Sym(symbol) => Ok(Some(calls_of_symbol(symbol))),
        Symbolized::Unknown(blazesym::symbolize::Reason::IgnoredError) => Err(()),
        Symbolized::Unknown(_) => Ok(None),
    }
}

fn calls_of_symbol(symbol: &Sym<'_>) -> Calls {
    let inlined = symbol
        .inlined
        .iter()
        .rev()
        .map(|call| (&call.name, call.code_info.as_ref()));
    let outermost = (&symbol.name, symbol.code_info.as_deref());
    inlined
        .chain([outermost])
        .map(|(name, code)| call(name, code))
        .collect()
}

fn call(name: &str, code: Option<&CodeInfo<'_>>) -> Call {
    Call {
        function: (!name.is_empty()).then(|| demangle(name)),
        file: code.map(|code| printable(code.to_path().as_os_str().as_encoded_bytes())),
        line: code.and_then(|code| code.line).filter(|&line| line != 0),
    }
}

/// A panic over a damaged file is counted, not printed.
pub(super) fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() != Some(THREAD) {
                others(panic);
            }
        }));
    });
}
