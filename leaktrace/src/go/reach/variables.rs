//! Names of a program's variables: from its symbols, or by the code that uses them where it has none.

use std::collections::HashMap;

use iced_x86::{Decoder, DecoderOptions};
use object::LittleEndian;
use object::elf::{STT_OBJECT, Sym64};
use object::pod::slice_from_all_bytes;

use crate::go::bytes::text_at;
use crate::go::pclntab::Function;
use crate::go::runtime::Runtime;
use crate::go::shown;
use crate::target::files::read_at;
use crate::target::{ElfHeaders, printable};

const ENDIAN: LittleEndian = LittleEndian;
/// Most bytes of a table of symbols, or of their names.
const MAX_SYMBOLS: u64 = 512 << 20;
/// Longest name.
const MAX_NAME: usize = 4096;
/// Most variables.
const MAX_VARIABLES: usize = 1 << 22;
/// Most bytes of code that are searched: some seconds.
const MAX_CODE: u64 = 512 << 20;
/// How much of it is read at once.
const PART: u64 = 4 << 20;
/// Packages whose variables are the runtime's.
const RUNTIME: [&str; 3] = ["runtime.", "runtime/internal/", "internal/runtime/"];

/// A variable.
#[derive(Clone, Debug)]
struct Variable {
    /// Where it begins, as the file counts addresses.
    start: u64,
    /// Where it ends, if that is known.
    end: Option<u64>,
    name: Name,
    is_runtime: bool,
}

/// What is known of a variable's name.
#[derive(Clone, Debug)]
enum Name {
    /// It.
    Symbol(String),
    /// The start of a function that uses it.
    UsedBy(u64),
}

/// The variables of a program that can hold pointers, by address.
#[derive(Debug, Default)]
pub struct Variables {
    all: Vec<Variable>,
    bias: u64,
}

impl Variables {
    /// Finds them: by the symbols, or else by the code.
    pub fn find(runtime: &Runtime) -> Self {
        let mut all = symbols(runtime);
        if all.is_empty() {
            all = used(runtime);
        }
        all.sort_by_key(|variable| variable.start);
        all.dedup_by_key(|variable| variable.start);
        Self {
            all,
            bias: runtime.bias,
        }
    }

    /// The variable that an address of the process lies in, as the address of its start; the address itself where that is
    /// not known. Whether it is the runtime's own.
    pub fn of(&self, address: u64) -> (u64, bool) {
        match self.variable(address) {
            Some(variable) => (variable.start.wrapping_add(self.bias), variable.is_runtime),
            None => (address, false),
        }
    }

    /// Where the variable `name` begins in the process.
    pub fn named(&self, name: &str) -> Option<u64> {
        let is_it = |variable: &&Variable| matches!(&variable.name, Name::Symbol(symbol) if symbol == name);
        Some(self.all.iter().find(is_it)?.start.wrapping_add(self.bias))
    }

    /// Where the runtime's own begin in the process.
    pub fn of_runtime(&self) -> impl Iterator<Item = u64> + '_ {
        let own = self.all.iter().filter(|variable| variable.is_runtime);
        own.map(|variable| variable.start.wrapping_add(self.bias))
    }

    /// What to call the variable that begins at `start` in the process; `offset` is that of the word meant, if there is
    /// one.
    pub fn name(&self, runtime: &Runtime, start: u64, offset: Option<u64>) -> String {
        let offset = offset.filter(|&offset| offset != 0);
        let file_address = start.wrapping_sub(self.bias);
        match self.variable(start).map(|variable| &variable.name) {
            Some(Name::Symbol(name)) => offset.map_or_else(|| name.clone(), |offset| format!("{name}+{offset:#x}")),
            Some(Name::UsedBy(function)) => {
                let function = runtime.table.find(*function);
                let name = function.and_then(|function| runtime.table.name(&function)).map(shown);
                let name = name.unwrap_or_else(|| "unnamed code".to_owned());
                let at = file_address.wrapping_add(offset.unwrap_or(0));
                format!("a variable at {at:#x} that {name} uses")
            }
            None => format!("a variable at {file_address:#x} without a name"),
        }
    }

    fn variable(&self, address: u64) -> Option<&Variable> {
        let address = address.wrapping_sub(self.bias);
        let after = self.all.partition_point(|variable| variable.start <= address);
        let variable = self.all.get(after.checked_sub(1)?)?;
        variable.end.is_none_or(|end| address < end).then_some(variable)
    }
}

/// Whether something with this name is the runtime's own.
fn is_runtime(name: &str) -> bool {
    RUNTIME.iter().any(|package| name.starts_with(package))
}

/// Whether an address of the file lies where variables with pointers are.
fn holds_variables(runtime: &Runtime, address: u64) -> bool {
    let ranges = [runtime.module.data, runtime.module.bss];
    ranges.iter().any(|(start, end)| (*start..*end).contains(&address))
}

fn symbols(runtime: &Runtime) -> Vec<Variable> {
    let (file, headers) = (runtime.file.file(), runtime.file.headers());
    let contents = |name: &[u8]| ElfHeaders::contents(file, headers.section(name)?, MAX_SYMBOLS).ok();
    let (Some(table), Some(names)) = (contents(b".symtab"), contents(b".strtab")) else {
        return Vec::new();
    };
    let symbols: &[Sym64<LittleEndian>] = slice_from_all_bytes(&table).unwrap_or_default();
    let variable = |symbol: &Sym64<LittleEndian>| {
        let (start, size) = (symbol.st_value.get(ENDIAN), symbol.st_size.get(ENDIAN));
        let is_one = symbol.st_info.st_type() == STT_OBJECT && size > 0 && holds_variables(runtime, start);
        let name = is_one.then(|| text_at(&names, symbol.st_name.get(ENDIAN) as usize, MAX_NAME))??;
        let name = printable(name);
        Some(Variable {
            start,
            end: Some(start.checked_add(size)?),
            is_runtime: is_runtime(&name),
            name: Name::Symbol(name),
        })
    };
    symbols.iter().filter_map(variable).take(MAX_VARIABLES).collect()
}

/// Each address of a variable that stands in the code, with the first function that uses it: one of the program's, if
/// there is one.
fn used(runtime: &Runtime) -> Vec<Variable> {
    let mut uses: HashMap<u64, (u64, bool)> = HashMap::new();
    let mut code = Code::default();
    let mut left = MAX_CODE;
    for function in runtime.table.functions() {
        let size = function.end.saturating_sub(function.start);
        if size > left || uses.len() >= MAX_VARIABLES {
            break;
        }
        left -= size;
        let own = is_runtime(&String::from_utf8_lossy(
            runtime.table.name(&function).unwrap_or_default(),
        ));
        for address in code.addresses(runtime, &function) {
            let known = uses.entry(address).or_insert((function.start, own));
            if known.1 && !own {
                *known = (function.start, own);
            }
        }
    }
    let variable = |(start, (function, is_runtime))| Variable {
        start,
        end: None,
        name: Name::UsedBy(function),
        is_runtime,
    };
    uses.into_iter().map(variable).collect()
}

/// A part of the code, as it stands in the file.
#[derive(Default)]
struct Code {
    start: u64,
    bytes: Vec<u8>,
}

impl Code {
    /// Addresses of variables that a function's instructions name.
    fn addresses(&mut self, runtime: &Runtime, function: &Function) -> Vec<u64> {
        let code = self.of(runtime, function).unwrap_or_default();
        let decoder = Decoder::with_ip(64, code, function.start, DecoderOptions::NONE);
        let operands = decoder
            .into_iter()
            .filter(iced_x86::Instruction::is_ip_rel_memory_operand);
        let addresses = operands.map(|instruction| instruction.ip_rel_memory_address());
        addresses.filter(|&address| holds_variables(runtime, address)).collect()
    }

    /// The code of a function; what is not here is read, with what follows.
    fn of(&mut self, runtime: &Runtime, function: &Function) -> Option<&[u8]> {
        let size = function.end.checked_sub(function.start)?;
        let end = self.start.saturating_add(self.bytes.len() as u64);
        if function.start < self.start || function.end > end {
            let offset = runtime.file.headers().file_offset(function.start)?;
            let text = runtime.module.text.1.saturating_sub(function.start);
            let wanted = text.min(PART).max(size).min(MAX_CODE);
            self.start = function.start;
            self.bytes = read_at(runtime.file.file(), offset, wanted, MAX_CODE).unwrap_or_default();
        }
        let from = function.start - self.start;
        self.bytes.get(from as usize..(from + size) as usize)
    }
}
