//! The messages of pprof's `profile.proto`, as far as a heap profile has a use for them.
//!
//! Written by hand, so that building needs no protobuf compiler; the numbers are the format. A text is an index into
//! [`Profile::string_table`], whose first entry is empty.

/// One profile.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Profile {
    /// What each value of a sample means.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// One per site.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// Modules, the main executable first.
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    /// Addresses of code.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// Functions.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// Every text, once.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// Start of the window in nanoseconds since 1970.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// Length of the window in nanoseconds.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// What a sample stands for.
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    /// How much of it.
    #[prost(int64, tag = "12")]
    pub period: i64,
    /// Texts for people; indices.
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
    /// The kind of value to show first; an index.
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
}

/// What a value means.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct ValueType {
    /// Its name; an index.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// Its unit; an index.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// One stack and its values.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Sample {
    /// Ids of locations, innermost first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One for each sample type.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// What else is known of it.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// One thing known of a sample.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Label {
    /// Its name; an index.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// What it is; an index.
    #[prost(int64, tag = "2")]
    pub str: i64,
}

/// A module in memory.
#[expect(clippy::struct_excessive_bools, reason = "the format has them")]
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Mapping {
    /// From 1 without gaps.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// First address.
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    /// Address after the last.
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    /// Where in the file the first address is.
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    /// Path; an index.
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// Build id, hexadecimal; an index.
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    /// Whether functions are already known.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    /// Whether source files are.
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    /// Whether source lines are.
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    /// Whether inlined calls are.
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// An address of code, and the calls that are there.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Location {
    /// From 1 without gaps.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Its mapping; 0 for none.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// The address, within the mapping.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// Calls, innermost inlined one first.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// A line of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Line {
    /// Id of the function.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// Its line; 0 when not known.
    #[prost(int64, tag = "2")]
    pub line: i64,
}

/// A function.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Function {
    /// From 1 without gaps.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Demangled name; an index.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// Name in the binary; an index.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// Source file; an index.
    #[prost(int64, tag = "4")]
    pub filename: i64,
}
