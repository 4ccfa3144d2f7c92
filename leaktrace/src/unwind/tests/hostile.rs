//! Damaged files: no panic, and no more rows than there are bytes to make them of.

use std::{borrow::Cow, fs, sync::LazyLock};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{process::vdso, rows::check_form};
use crate::unwind::{FrameSection, RuleInterner, Table, UnwindSections, build, sections, table};

/// A small real file with entries of all kinds.
static LOADER: LazyLock<Vec<u8>> = LazyLock::new(|| fs::read("/lib64/ld-linux-x86-64.so.2").expect("the loader"));
static VDSO: LazyLock<Vec<u8>> = LazyLock::new(vdso);

fn damage(bytes: &mut Vec<u8>, flips: &[(Index, u8)], length: Option<Index>) {
    for (at, with) in flips {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
        }
    }
    if let Some(length) = length {
        bytes.truncate(length.index(bytes.len() + 1));
    }
}

/// What holds for every table, whatever it was made of.
fn check(table: &Table, bytes: usize) {
    assert!(table.rows.len() <= bytes, "{} rows of {bytes} bytes", table.rows.len());
    assert!(table.rows.is_sorted_by(|a, b| a.offset < b.offset && a.rule != b.rule));
    let packed = RuleInterner::default().pack(table);
    check_form(&packed).expect("form");
    assert!(packed.page_count() <= 1 << 16);
    assert!(packed.rows.len() <= table.rows.len() + packed.pages.len());
}

fn with_bytes(bytes: Vec<u8>, debug: bool) -> UnwindSections<'static> {
    let original = sections(LOADER.as_slice()).expect("sections");
    let address = original.eh_frame.map_or(0, |section| section.address);
    let section = Some(FrameSection {
        address,
        bytes: Cow::Owned(bytes),
    });
    let (eh_frame, debug_frame) = if debug { (None, section) } else { (section, None) };
    UnwindSections {
        eh_frame,
        debug_frame,
        text_address: original.text_address,
        got_address: original.got_address,
        code: original.code,
    }
}

proptest! {
    #[test]
    fn damaged_sections(
        flips in vec((any::<Index>(), 1..=u8::MAX), 1..40),
        length in proptest::option::of(any::<Index>()),
        debug: bool,
    ) {
        let original = sections(LOADER.as_slice()).expect("sections");
        let mut bytes = original.eh_frame.expect("a section").bytes.into_owned();
        damage(&mut bytes, &flips, length);
        let size = bytes.len();
        check(&build(&with_bytes(bytes, debug)).expect("sections"), size);
    }

    #[test]
    fn noise(bytes in vec(any::<u8>(), 0..2000), debug: bool) {
        let size = bytes.len();
        check(&build(&with_bytes(bytes, debug)).expect("sections"), size);
    }

    /// Headers too: with and without those of sections.
    #[test]
    fn damaged_images(
        flips in vec((any::<Index>(), 1..=u8::MAX), 0..20),
        headers in vec((0..1000_usize, 1..=u8::MAX), 0..4),
        length in proptest::option::of(any::<Index>()),
        stripped: bool,
    ) {
        let mut image = VDSO.clone();
        if stripped {
            image[40..48].fill(0);
        }
        for (at, with) in headers {
            image[at] ^= with;
        }
        damage(&mut image, &flips, length);
        if let Ok(table) = table(&*image) {
            check(&table, image.len() * 2);
        }
    }
}
