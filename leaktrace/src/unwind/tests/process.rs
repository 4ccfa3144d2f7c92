//! A process's code and memory as unwinders see them: this one's, or one stopped by ptrace.

use std::{collections::HashMap, fs, os::unix::fs::FileExt};

use framehop::{
    ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder,
    x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64},
};
use leaktrace_common::{
    events::StackEnd,
    unwind::{CfaKind, FramePointerKind, Memory, Registers, Rule, UnwindMapping, step},
};
use object::{Object, ObjectSection};

use crate::unwind::{PackedModule, RuleInterner, table};

const PAGE: u64 = 4096;

/// framehop reads no memory for a CFA, and guesses from frame pointers instead. `backtrace()` has the truth here.
const FRAMEHOP_CANNOT: [u8; 3] = [
    CfaKind::AtStackPointer as u8,
    CfaKind::AtFramePointer as u8,
    CfaKind::Signal as u8,
];

/// The image of the vDSO, from this process's own memory.
pub fn vdso() -> Vec<u8> {
    let maps = fs::read_to_string("/proc/self/maps").expect("one's own");
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).expect("a vDSO");
    let (start, end) = line
        .split(' ')
        .next()
        .and_then(|range| range.split_once('-'))
        .expect("a range");
    let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).expect("a number"));
    image("self", start, end)
}

fn image(process: &str, start: u64, end: u64) -> Vec<u8> {
    let mut bytes = vec![0; (end - start) as usize];
    let memory = fs::File::open(format!("/proc/{process}/mem")).expect("a process of one's own");
    memory.read_exact_at(&mut bytes, start).expect("mapped");
    bytes
}

/// The memory of a process that does not run.
pub struct Stopped {
    file: fs::File,
    pages: HashMap<u64, Option<Vec<u8>>>,
}

impl Stopped {
    pub fn of(process: &str) -> Self {
        Self {
            file: fs::File::open(format!("/proc/{process}/mem")).expect("a process of one's own"),
            pages: HashMap::new(),
        }
    }

    /// To be called when the process has run.
    pub fn forget(&mut self) {
        self.pages.clear();
    }
}

impl Memory for Stopped {
    fn word(&mut self, address: u64) -> Option<u64> {
        let at = (address % PAGE) as usize;
        if at as u64 > PAGE - 8 {
            let mut word = [0; 8];
            self.file.read_exact_at(&mut word, address).ok()?;
            return Some(u64::from_le_bytes(word));
        }
        let page = address - at as u64;
        let file = &self.file;
        let bytes = self.pages.entry(page).or_insert_with(|| {
            let mut bytes = vec![0; PAGE as usize];
            file.read_exact_at(&mut bytes, page).ok().map(|()| bytes)
        });
        let word = bytes.as_ref()?.get(at..at + 8)?;
        Some(u64::from_le_bytes(word.try_into().ok()?))
    }
}

/// The code of a process, for both unwinders.
pub struct Code {
    modules: Vec<Mapped>,
    rules: RuleInterner,
    framehop: UnwinderX86_64<Vec<u8>>,
    cache: CacheX86_64,
}

struct Mapped {
    mapping: UnwindMapping,
    packed: PackedModule,
    path: String,
    /// framehop takes either section; tables are made from both.
    has_debug_frame: bool,
}

/// A walk in which the unwinders agreed at each frame.
#[derive(Debug)]
pub struct Walk {
    /// Addresses, innermost first.
    pub frames: Vec<u64>,
    pub end: StackEnd,
}

impl Code {
    /// What is mapped now.
    pub fn of(process: &str) -> Self {
        let mut code = Self {
            modules: Vec::new(),
            rules: RuleInterner::default(),
            framehop: UnwinderX86_64::new(),
            cache: CacheX86_64::new(),
        };
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("a process of one's own");
        for line in maps
            .lines()
            .filter(|line| line.split(' ').nth(1).is_some_and(|flags| flags.contains('x')))
        {
            code.map(process, line);
        }
        assert!(!code.modules.is_empty(), "{maps}");
        code
    }

    fn map(&mut self, process: &str, line: &str) {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next().and_then(|range| range.split_once('-')).expect("a range");
        let hex = |text: &str| u64::from_str_radix(text, 16).expect("a number");
        let (start, end) = (hex(start), hex(end));
        let offset = hex(fields.nth(1).expect("an offset"));
        let path = fields.nth(2).unwrap_or_default();
        let bytes = match path {
            "[vdso]" => image(process, start, end),
            path if path.starts_with('/') => fs::read(path).expect("a file that is mapped"),
            _ => return,
        };
        let packed = self.rules.pack(&table(&*bytes).expect("tables"));
        let mapping = packed.mapping(start, end, offset, 0).expect("code");
        let file = object::File::parse(&*bytes).expect("an ELF file");
        let bias = mapping.bias.wrapping_sub(packed.first_address);
        self.framehop.add_module(framehop_module(&file, start..end, bias));
        self.modules.push(Mapped {
            mapping,
            packed,
            path: path.to_owned(),
            has_debug_frame: file.section_by_name(".debug_frame").is_some(),
        });
    }

    /// Path of the file whose code is at an address.
    pub fn path(&self, address: u64) -> &str {
        self.module(address).map_or("", |module| &module.path)
    }

    fn module(&self, address: u64) -> Option<&Mapped> {
        self.modules
            .iter()
            .find(|module| (module.mapping.start..module.mapping.end).contains(&address))
    }

    fn rule(&self, address: u64) -> Option<Rule> {
        let module = self.module(address)?;
        let within = address
            .wrapping_sub(module.mapping.bias)
            .wrapping_add(module.packed.first_address);
        Some(*module.packed.lookup(self.rules.rules(), within))
    }

    /// Walks with both unwinders in step; panics where they differ.
    pub fn walk(&mut self, mut registers: Registers, memory: &mut Stopped) -> Walk {
        let mut frames = Vec::new();
        let mut exact = true;
        loop {
            frames.push(registers.instruction_pointer);
            let lookup = registers.instruction_pointer - u64::from(!exact);
            let rule = self.rule(lookup).unwrap_or(Rule::GAP);
            let before = registers;
            let done = step(&mut registers, &rule, lookup, memory);
            if matches!(done, Err(StackEnd::Gap | StackEnd::Unsupported)) || frames.len() > 1000 {
                return Walk {
                    frames,
                    end: done.err().unwrap_or(StackEnd::TooDeep),
                };
            }
            exact = rule.cfa == CfaKind::Signal as u8;
            if FRAMEHOP_CANNOT.contains(&rule.cfa) || self.module(lookup).is_some_and(|module| module.has_debug_frame) {
                match done {
                    Ok(()) => continue,
                    Err(end) => return Walk { frames, end },
                }
            }
            let address = if lookup == before.instruction_pointer {
                FrameAddress::from_instruction_pointer(before.instruction_pointer)
            } else {
                FrameAddress::from_return_address(before.instruction_pointer).expect("not zero")
            };
            let mut theirs =
                UnwindRegsX86_64::new(before.instruction_pointer, before.stack_pointer, before.frame_pointer);
            let mut read = |address| memory.word(address).ok_or(());
            let their_end = self
                .framehop
                .unwind_frame(address, &mut theirs, &mut self.cache, &mut read);
            if rule.frame_pointer == FramePointerKind::Undefined as u8 {
                registers.frame_pointer = theirs.bp();
            }
            let ours = UnwindRegsX86_64::new(
                registers.instruction_pointer,
                registers.stack_pointer,
                registers.frame_pointer,
            );
            match (done, their_end) {
                (Ok(()), Ok(Some(_))) => assert_eq!(
                    (ours.ip(), ours.sp(), ours.bp()),
                    (theirs.ip(), theirs.sp(), theirs.bp()),
                    "{rule:?} at {before:x?}, walked {frames:x?}"
                ),
                (Err(end @ StackEnd::Whole), Ok(None)) | (Err(end @ StackEnd::Fault), Err(_)) => {
                    return Walk { frames, end };
                }
                different => panic!("{different:?}: {rule:?} at {before:x?}, walked {frames:x?}"),
            }
        }
    }
}

fn framehop_module(file: &object::File<'_>, range: std::ops::Range<u64>, bias: u64) -> Module<Vec<u8>> {
    let svma = |name: &str| {
        let section = file.section_by_name(name)?;
        Some(section.address()..section.address() + section.size())
    };
    let data = |name: &str| {
        file.section_by_name(name)?
            .uncompressed_data()
            .ok()
            .map(std::borrow::Cow::into_owned)
    };
    let base = file
        .segments()
        .map(|segment| object::ObjectSegment::address(&segment))
        .min()
        .unwrap_or(0)
        & !(PAGE - 1);
    Module::new(
        String::new(),
        range,
        bias.wrapping_add(base),
        ExplicitModuleSectionInfo {
            base_svma: base,
            text_svma: svma(".text"),
            got_svma: svma(".got"),
            eh_frame_svma: svma(".eh_frame"),
            eh_frame: data(".eh_frame"),
            eh_frame_hdr_svma: svma(".eh_frame_hdr"),
            eh_frame_hdr: data(".eh_frame_hdr"),
            debug_frame: data(".debug_frame"),
            ..ExplicitModuleSectionInfo::default()
        },
    )
}
