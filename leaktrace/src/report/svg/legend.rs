//! Which colour is which module, in the line under the title. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use inferno::flamegraph::color::Color;

use super::{colour, xml};
use crate::profile::{Frame, Profile};
use crate::report::{Metric, label};

/// Stands in the line under the title until [`placed`].
pub(super) const PLACE: &str = "{modules}";

/// Most modules named, and most characters of their names together: what fits the line.
const MOST: usize = 6;
const ROOM: usize = 90;

/// Names and colours of the modules through which most of the metric passes, the most first.
pub(super) fn legend(profile: &Profile, metric: Metric) -> Vec<(String, Color)> {
    let mut weights = BTreeMap::<&str, u128>::new();
    for site in profile.sites.iter().filter(|site| metric.of(site) > 0) {
        let modules: BTreeSet<&str> = site.stack.frames.iter().map(|frame| frame.module.as_str()).collect();
        for module in modules.into_iter().filter(|module| !module.is_empty()) {
            *weights.entry(module).or_default() += u128::from(metric.of(site));
        }
    }
    let mut modules: Vec<(&str, u128)> = weights.into_iter().collect();
    // The program itself first, as its colour is not its name's.
    modules.sort_by_key(|(module, weight)| (*module != profile.target.exe, Reverse(*weight)));
    let mut room = ROOM;
    let entries = modules
        .into_iter()
        .take(MOST)
        .map(|(module, _)| entry(module, &profile.target.exe));
    let fitting = entries.take_while(|(name, _)| {
        let taken = name.chars().count() + 3;
        let fits = taken <= room;
        room = room.saturating_sub(taken);
        fits
    });
    fitting.collect()
}

fn entry(module: &str, exe: &str) -> (String, Color) {
    let frame = Frame {
        module: module.to_owned(),
        ..Frame::default()
    };
    (
        label::one_line(frame.module_name()).into_owned(),
        colour::of(module, "", module == exe),
    )
}

/// The picture with the legend in its place. Only inferno's subtitle is looked at: the place's word may occur elsewhere.
pub(super) fn placed(picture: &str, legend: &[(String, Color)]) -> String {
    let entries: Vec<String> = legend
        .iter()
        .map(|(name, c)| format!(r#"<tspan fill="rgb({},{},{})">■</tspan> {}"#, c.r, c.g, c.b, xml(name)))
        .collect();
    match picture.split_once(r#"id="subtitle""#) {
        Some((before, after)) => format!(
            r#"{before}id="subtitle"{}"#,
            after.replacen(PLACE, &entries.join("  "), 1)
        ),
        None => picture.to_owned(),
    }
}
