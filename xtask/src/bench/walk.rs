//! What a stack costs by its frames: the same program, eleven and ninety-one calls deep, with its stacks walked by the
//! tables and by the kernel's own helper (`bpf_get_stackid`), which goes by frame pointers. Nothing else is done at the
//! probe, so that the difference between the two depths is that of the frames.

use anyhow::Result;

use super::{
    Setting, cost,
    program::{self, Frames, Program},
    say,
    table::{Row, Spread},
};

/// Frames that the deep program has more than the other.
const MORE_FRAMES: f64 = 80.0;

/// The two ways, as `--attach-with` names them.
const WAYS: [(&str, &str); 2] = [("by tables", "walk"), ("by bpf_get_stackid", "kernel-walk")];

/// Measures both ways in the same rounds, for a program with frame pointers; by tables also for one without, where
/// the helper finds one frame.
pub fn measure(setting: &Setting) -> Result<Vec<Row>> {
    let rounds = if setting.quick { 3 } else { 9 };
    let mut rows = Vec::new();
    for frames in Frames::ALL {
        say(&format!("walk {}, {rounds} rounds", frames.words()));
        let ways = if frames == Frames::Pointers {
            &WAYS[..]
        } else {
            &WAYS[..1]
        };
        let costs = (0..rounds)
            .map(|_| ways.iter().map(|(_, way)| per_frame(way, frames, setting)).collect())
            .collect::<Result<Vec<Vec<f64>>>>()?;
        rows.extend(told(frames, ways, &costs));
    }
    Ok(rows)
}

/// Nanoseconds for a frame.
fn per_frame(way: &str, frames: Frames, setting: &Setting) -> Result<f64> {
    let cost = |name| -> Result<f64> {
        let mut program = Program::start(&program::path(name, frames))?;
        Ok(cost::traced(&setting.leaktrace, &mut program, &["--attach-with", way], false)?.0)
    };
    let shallow = cost("shallow")?;
    Ok((cost("deep")? - shallow) / MORE_FRAMES)
}

fn told(frames: Frames, ways: &[(&str, &str)], costs: &[Vec<f64>]) -> Vec<Row> {
    let of_way = |at: usize| costs.iter().filter_map(move |round| round.get(at).copied());
    let benchmark = format!("walk, {}", frames.words());
    let mut rows: Vec<Row> = ways
        .iter()
        .enumerate()
        .map(|(at, (what, _))| Row::new(&benchmark, what, "ns per frame", Spread::of(of_way(at))))
        .collect();
    let ratios = Spread::of(of_way(0).zip(of_way(1)).map(|(tables, helper)| tables / helper));
    if ratios.is_some() {
        rows.push(Row::new(&benchmark, "tables to helper", "times", ratios));
    }
    rows
}
