//! A flame graph, drawn by inferno: width is the metric, colour is the module.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::Context;
use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Options, TextTruncateDirection};

use super::{Metric, Report, View, folded, label};
use crate::profile::{Frame, Profile};
use crate::units;

mod colour;
mod legend;

pub(super) struct SvgReport;

const BACKGROUND: Color = Color { r: 250, g: 250, b: 248 };

impl Report for SvgReport {
    fn write(&self, profile: &Profile, view: &View, out: &mut dyn Write) -> anyhow::Result<()> {
        let names = Names::of(profile);
        let stacks = folded::fold(profile, view.metric, |frame| names.label(frame));
        if stacks.is_empty() {
            return Ok(out.write_all(empty(profile, view.metric).as_bytes())?);
        }
        let total: u128 = stacks.values().sum();
        u64::try_from(total).context("the values are too large to draw; the profile cannot be true")?;
        let lines: Vec<String> = stacks.iter().map(|(stack, value)| format!("{stack} {value}")).collect();
        let mut palette = names.palette();
        let mut picture = Vec::new();
        let mut options = options(profile, view.metric, &mut palette);
        flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut picture)?;
        let legend = legend::legend(profile, view.metric);
        out.write_all(legend::placed(&String::from_utf8_lossy(&picture), &legend).as_bytes())?;
        Ok(())
    }
}

fn options<'a>(profile: &Profile, metric: Metric, palette: &'a mut PaletteMap) -> Options<'a> {
    let mut options = Options::default();
    options.title = title(profile, metric);
    options.subtitle = Some(subtitle(profile));
    options.count_name = String::from(metric.unit());
    options.name_type = String::from("Call:");
    options.palette_map = Some(palette);
    options.bgcolors = Some(BackgroundColor::Flat(BACKGROUND));
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.frame_height = 18;
    options.min_width = 0.05;
    options
}

fn title(profile: &Profile, metric: Metric) -> String {
    format!("{}: {} by call stack", process(profile), metric.name())
}

fn process(profile: &Profile) -> String {
    let target = &profile.target;
    let path = if target.exe.trim().is_empty() {
        &target.command
    } else {
        &target.exe
    };
    let frame = Frame {
        module: path.clone(),
        ..Frame::default()
    };
    let pids: Vec<String> = target.pids.iter().map(u32::to_string).collect();
    format!("{} (pid {})", label::one_line(frame.module_name()), pids.join(", "))
}

fn subtitle(profile: &Profile) -> String {
    let accounting = &profile.accounting;
    let lost = if accounting.complete { "" } else { " (events were lost)" };
    format!(
        "{} outstanding in {} after {}{lost}. {}",
        units::size(accounting.live_bytes),
        units::count(accounting.live_count, "block"),
        units::duration(profile.window.duration_ns),
        legend::PLACE,
    )
}

/// inferno draws an error where there is nothing; nothing outstanding is good news.
fn empty(profile: &Profile, metric: Metric) -> String {
    let nothing = match metric {
        Metric::LiveBytes | Metric::LiveCount => "nothing outstanding",
        Metric::AllocBytes | Metric::AllocCount => "nothing allocated",
    };
    let title = xml(&title(profile, metric));
    let after = units::duration(profile.window.duration_ns);
    format!(
        r##"<?xml version="1.0" standalone="no"?>
<svg version="1.1" width="1200" height="120" viewBox="0 0 1200 120" xmlns="http://www.w3.org/2000/svg">
<rect width="100%" height="100%" fill="#fafaf8"/>
<g font-family="monospace" font-size="14" text-anchor="middle" fill="#000000">
<text x="600" y="36" font-size="17">{title}</text>
<text x="600" y="76">{nothing} after {after}</text>
</g>
</svg>
"##
    )
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// What each frame is called in the picture, and its module. inferno colours by name: a name that occurs in several
/// modules gets its module behind it, so that each has one colour.
struct Names<'a> {
    modules: BTreeMap<String, BTreeSet<&'a str>>,
    exe: &'a str,
}

impl<'a> Names<'a> {
    fn of(profile: &'a Profile) -> Self {
        let mut modules = BTreeMap::<String, BTreeSet<&str>>::new();
        for frame in profile.sites.iter().flat_map(|site| &site.stack.frames) {
            modules
                .entry(folded::frame_label(frame))
                .or_default()
                .insert(&frame.module);
        }
        Self {
            modules,
            exe: &profile.target.exe,
        }
    }

    fn label(&self, frame: &Frame) -> String {
        self.suffixed(&folded::frame_label(frame), &frame.module)
    }

    fn suffixed(&self, name: &str, module: &str) -> String {
        match self.modules.get(name) {
            Some(modules) if modules.len() > 1 => {
                let frame = Frame {
                    module: module.to_owned(),
                    ..Frame::default()
                };
                folded::escaped(&format!("{name} [{}]", label::one_line(frame.module_name())))
            }
            _ => name.to_owned(),
        }
    }

    fn palette(&self) -> PaletteMap {
        let mut palette = PaletteMap::default();
        for special in ["", label::TRUNCATED, label::UNKNOWN] {
            palette.insert(special, colour::NONE);
        }
        for (name, modules) in &self.modules {
            for module in modules {
                palette.insert(
                    self.suffixed(name, module),
                    colour::of(module, name, *module == self.exe),
                );
            }
        }
        palette
    }
}

#[cfg(test)]
mod tests;
