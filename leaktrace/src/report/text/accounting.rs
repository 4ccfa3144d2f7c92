//! Totals and everything lost, on one line, in plain words. Pure.

use super::golang;
use crate::profile::{Accounting, BEGAN_UNTRACED, MAIN_THREAD_GONE, Profile};
use crate::report::label;
use crate::units::{count, number, percent, size};

/// The line.
pub(super) fn line(profile: &Profile) -> String {
    let accounting = &profile.accounting;
    format!(
        "{}; {}{}{}",
        totals(profile),
        lost(accounting),
        stacks(accounting),
        notes(accounting),
    )
}

/// What was allocated and freed; of Go's heap, what is garbage, as nobody frees there.
fn totals(profile: &Profile) -> String {
    let all = &profile.accounting;
    let go = profile.go.as_ref();
    let of_go = go.map_or((0, 0, 0, 0), |go| {
        let garbage = go.allocated_count.saturating_sub(go.live_count);
        let garbage_bytes = go.allocated_bytes.saturating_sub(go.live_bytes);
        (go.allocated_count, go.allocated_bytes, garbage, garbage_bytes)
    });
    let native = format!(
        "{} ({}), {} ({})",
        count(all.allocations.saturating_sub(of_go.0), "allocation"),
        size(all.allocated_bytes.saturating_sub(of_go.1)),
        count(all.frees.saturating_sub(of_go.2), "free"),
        size(all.freed_bytes.saturating_sub(of_go.3)),
    );
    let Some(go) = go else { return native };
    let golang = golang::totals(go);
    if all.allocations > of_go.0 {
        format!("{native}; {golang}")
    } else {
        golang
    }
}

/// How many stacks were unwound to their end; nothing where that was not counted.
fn stacks(accounting: &Accounting) -> String {
    let (all, whole) = (accounting.stacks, accounting.whole_stacks);
    match all.saturating_sub(whole) {
        _ if all == 0 => String::new(),
        0 => "; all stacks whole".to_owned(),
        cut => format!("; {}{}", not_whole(cut, accounting), endings(accounting)),
    }
}

/// `1 of 3 stacks not whole, with 0.1 % of the allocations`.
fn not_whole(cut: u64, accounting: &Accounting) -> String {
    let stacks = format!("{} of {} stacks not whole", number(cut), number(accounting.stacks));
    let all = accounting.allocations;
    match accounting.whole_allocations {
        Some(whole) if all > 0 => {
            let share = percent(all.saturating_sub(whole) as f64, all as f64);
            format!("{stacks}, with {share} of the allocations")
        }
        _ => stacks,
    }
}

/// Why the stacks are not whole, the most frequent reason first.
fn endings(accounting: &Accounting) -> String {
    let mut cut: Vec<(&String, u64)> = accounting
        .cut_stacks
        .iter()
        .map(|(word, cut)| (word, cut.stacks))
        .collect();
    cut.sort_by_key(|(_, stacks)| std::cmp::Reverse(*stacks));
    let words = cut
        .iter()
        .map(|(word, stacks)| format!("{} {}", number(*stacks), ending(word)));
    let words: Vec<String> = words.collect();
    if words.is_empty() {
        String::new()
    } else {
        format!(" ({})", words.join(", "))
    }
}

/// What a word of the contract means; one of a newer version is its own.
fn ending(word: &str) -> String {
    match word {
        "no_unwind_info" => "in code without unwinding information".to_owned(),
        "unsupported_rule" => "at unwinding information not supported".to_owned(),
        "unreadable" => "unreadable".to_owned(),
        "too_deep" => "too deep".to_owned(),
        "guessed" => "guessed by frame pointers".to_owned(),
        "new_code" => "in code mapped only just before".to_owned(),
        "unsettled" => "taken while code was being unmapped".to_owned(),
        "not_kept" => "not kept".to_owned(),
        "unknown" => "for reasons not known".to_owned(),
        newer => label::one_line(&newer.replace('_', " ")).into_owned(),
    }
}

fn lost(accounting: &Accounting) -> String {
    let reasons: Vec<String> = accounting
        .lost
        .iter()
        .filter_map(|(key, count)| reason(accounting, key, *count))
        .collect();
    match (reasons.is_empty(), accounting.complete) {
        (true, true) => "nothing lost".to_owned(),
        (true, false) => "something was lost, and what is not known".to_owned(),
        (false, _) => format!("lost: {}", reasons.join(", ")),
    }
}

fn notes(accounting: &Accounting) -> String {
    let notes: Vec<String> = accounting
        .notes
        .iter()
        .filter_map(|(key, count)| reason(accounting, key, *count))
        .collect();
    if notes.is_empty() {
        String::new()
    } else {
        format!("; also seen: {}", notes.join(", "))
    }
}

/// One reason in words; `None` for what did not happen, and for bytes that are told with their blocks.
fn reason(accounting: &Accounting, key: &str, count: u64) -> Option<String> {
    if count == 0 {
        return None;
    }
    if key == MAIN_THREAD_GONE {
        return Some("the main thread ended during the trace (later events may be missing)".to_owned());
    }
    if key == BEGAN_UNTRACED {
        return Some("the program had begun before it was traced".to_owned());
    }
    let short = key.strip_prefix("lost_").unwrap_or(key);
    if let Some(blocks) = short.strip_suffix("_bytes")
        && accounting
            .lost
            .keys()
            .any(|other| other.strip_prefix("lost_").unwrap_or(other) == blocks)
    {
        return None;
    }
    let bytes = accounting
        .lost
        .get(&format!("{key}_bytes"))
        .map(|bytes| format!(" ({})", size(*bytes)));
    let (noun, rest) = match (words(short), count) {
        (None, _) => (label::one_line(&short.replace('_', " ")).into_owned(), ""),
        (Some((one, _, rest)), 1) => (one.to_owned(), rest),
        (Some((_, many, rest)), _) => (many.to_owned(), rest),
    };
    Some(format!("{} {noun}{}{rest}", number(count), bytes.unwrap_or_default()))
}

/// What a key of the contract means: one, many, and what befell them. A key of a newer version is its own words.
fn words(key: &str) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match key {
        "table_full" => ("block", "blocks", " that found the live table full (raise --max-live)"),
        "sites_full" => (
            "block",
            "blocks",
            " counted without a stack, the stack table being full (raise --max-stacks)",
        ),
        "no_memory" => ("block", "blocks", " that the kernel had no memory to keep"),
        "mapping_event" => ("mapping", "mappings", " that found the event buffer full"),
        "process_event" => ("process event", "process events", " that found the event buffer full"),
        "deferred_stacks" => ("stack", "stacks", " sent later, the event buffer being full"),
        "spans" => (
            "span",
            "spans",
            " of Go's heap that could not be told (what is live may be too much)",
        ),
        "samples_full" => (
            "sample",
            "samples",
            " of Go's heap that found no room (raise --max-live)",
        ),
        "stacks" => ("stack", "stacks", " that found the event buffer full"),
        "scratch" => ("call", "calls", " without room to walk the stack"),
        "threads_full" => ("call", "calls", " of threads too many to follow"),
        "unreadable" => ("result", "results", " that could not be read"),
        "not_recorded" => ("trace", "traces", " not recorded at all"),
        "untraced_allocators" => ("allocator", "allocators", " whose blocks this version does not trace"),
        "young" => ("block", "blocks", " younger than --min-age, left out of the sites"),
        "other_stack" => ("call", "calls", " made by signal handlers on a stack of their own"),
        "missed_frees" => ("free", "frees", " not seen"),
        "abandoned_calls" => ("call", "calls", " that never returned"),
        "unknown_break" => ("move", "moves", " of the break from an unknown place"),
        "unmatched_frees" => (
            "free",
            "frees",
            " of blocks that are not in the table (from before the trace, mostly)",
        ),
        "failed_calls" => ("failed call", "failed calls", ""),
        "nested_calls" => ("call", "calls", " inside others, counted once"),
        "own_mappings" => ("mapping", "mappings", " that the allocator made for itself"),
        "unreadable_addresses" => ("address", "addresses", " without a name, the file being damaged"),
        "unreadable_files" => ("file", "files", " that could not be read for names"),
        "files_without_debug" => ("file", "files", " with debug information that could not be used"),
        "slow_files" => ("file", "files", " given up, as names took too long"),
        "changed_files" => ("file", "files", " overwritten during the trace, and not used for names"),
        "refused_perf_maps" => (
            "perf map",
            "perf maps",
            " not used: not a regular file of the process's user or of root",
        ),
        "perf_map_lines" => ("line", "lines", " of the perf map that name no code"),
        "perf_map_entries" => ("name", "names", " of the perf map left out for want of room"),
        "perf_map_unread" => ("byte", "bytes", " of the perf map not read yet"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{CutStacks, GoHeap, fixture};

    fn said(accounting: Accounting) -> String {
        line(&Profile {
            accounting,
            ..fixture::empty()
        })
    }

    fn with(lost: &[(&str, u64)], notes: &[(&str, u64)]) -> String {
        let map = |entries: &[(&str, u64)]| entries.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect();
        said(Accounting {
            lost: map(lost),
            notes: map(notes),
            complete: lost.is_empty(),
            ..Accounting::default()
        })
    }

    #[test]
    fn nothing_lost_is_said() {
        assert_eq!(with(&[], &[]), "0 allocations (0 B), 0 frees (0 B); nothing lost");
    }

    #[test]
    fn reasons_are_told_in_words() {
        let line = with(
            &[("table_full", 1204), ("table_full_bytes", 98_304), ("lost_scratch", 1)],
            &[("unmatched_frees", 12), ("failed_calls", 0), ("something_new", 3)],
        );
        assert!(
            line.ends_with(
                "lost: 1 call without room to walk the stack, 1,204 blocks (96.0 KiB) that found the live table full \
                 (raise --max-live); also seen: 3 something new, 12 frees of blocks that are not in the table (from before the trace, \
                 mostly)"
            ),
            "{line}"
        );
    }

    #[test]
    fn what_gave_no_names_is_said() {
        let line = with(
            &[],
            &[("changed_files", 1), ("refused_perf_maps", 1), ("perf_map_lines", 2)],
        );
        assert!(
            line.ends_with(
                "1 file overwritten during the trace, and not used for names, 2 lines of the perf map that name no code, \
                 1 perf map not used: not a regular file of the process's user or of root"
            ),
            "{line}"
        );
    }

    #[test]
    fn stacks_that_are_not_whole_are_shared_out_by_allocations() {
        let cut = |word: &str, stacks| (word.to_owned(), CutStacks { stacks, allocations: 0 });
        let accounting = Accounting {
            allocations: 1000,
            complete: true,
            stacks: 10,
            whole_stacks: 7,
            whole_allocations: Some(990),
            cut_stacks: [cut("guessed", 1), cut("too_deep", 2), cut("by_magic", 1)].into(),
            ..Accounting::default()
        };
        let told = stacks(&accounting);
        assert_eq!(
            told,
            "; 3 of 10 stacks not whole, with 1.0 % of the allocations (2 too deep, 1 by magic, 1 guessed by frame \
             pointers)"
        );
        let old = Accounting {
            stacks: 10,
            whole_stacks: 7,
            ..Accounting::default()
        };
        assert_eq!(stacks(&old), "; 3 of 10 stacks not whole");
    }

    #[test]
    fn a_main_thread_that_ended_is_said_without_a_number() {
        let line = with(&[(MAIN_THREAD_GONE, 1)], &[]);
        assert!(
            line.ends_with("lost: the main thread ended during the trace (later events may be missing)"),
            "{line}"
        );
    }

    #[test]
    fn nobody_frees_on_go_s_heap_and_what_a_native_one_does_stands_apart() {
        let mut profile = fixture::empty();
        profile.go = Some(GoHeap {
            allocated_count: 1000,
            allocated_bytes: 64_000,
            live_count: 400,
            live_bytes: 25_600,
            garbage_bytes: 38_400,
            ..GoHeap::default()
        });
        profile.accounting = Accounting {
            allocations: 1000,
            allocated_bytes: 64_000,
            frees: 600,
            freed_bytes: 38_400,
            complete: true,
            ..Accounting::default()
        };
        let go = "about 1,000 objects (62.5 KiB) allocated on Go's heap, 37.5 KiB of it garbage by now; nothing lost";
        assert_eq!(line(&profile), go);
        profile.accounting.allocations += 5;
        profile.accounting.allocated_bytes += 500;
        profile.accounting.frees += 2;
        profile.accounting.freed_bytes += 200;
        assert_eq!(line(&profile), format!("5 allocations (500 B), 2 frees (200 B); {go}"));
    }

    #[test]
    fn a_loss_without_a_reason_is_not_hidden() {
        let line = said(Accounting {
            complete: false,
            ..Accounting::default()
        });
        assert!(line.ends_with("something was lost, and what is not known"));
    }
}
