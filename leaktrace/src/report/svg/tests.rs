use super::*;
use crate::profile::{Stack, fixture};

fn written(profile: &Profile, metric: Metric) -> String {
    let mut out = Vec::new();
    SvgReport
        .write(
            profile,
            &View {
                metric,
                ..View::default()
            },
            &mut out,
        )
        .expect("writes");
    String::from_utf8(out).expect("text")
}

#[test]
fn is_titled_and_names_the_metric() {
    let svg = written(&fixture::profile(), Metric::LiveBytes);
    assert!(svg.contains("orders (pid 4711): live bytes by call stack"));
    assert!(
        svg.contains("orders::handle(orders::Request const&amp;) (12,656,000 bytes, 97.30%)"),
        "{svg}"
    );
    assert!(svg.contains("12.4 MiB outstanding in 48,210 blocks after 30.0 s (events were lost). <tspan"));
    assert!(written(&fixture::profile(), Metric::AllocCount).contains("allocated blocks by call stack"));
}

#[test]
fn nothing_outstanding_is_a_valid_picture_that_says_so() {
    let svg = written(&fixture::empty(), Metric::LiveBytes);
    assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("nothing outstanding after 30.0 s"));
    assert!(written(&fixture::empty(), Metric::AllocBytes).contains("nothing allocated"));
}

#[test]
fn the_legend_names_the_modules_that_hold_most() {
    let legend = legend::legend(&fixture::profile(), Metric::LiveBytes);
    let names: Vec<_> = legend.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["orders", "libc.so.6", "libjson.so.5"]);
    let svg = written(&fixture::profile(), Metric::LiveBytes);
    assert!(svg.contains("</tspan> libc.so.6") && !svg.contains(legend::PLACE));
}

#[test]
fn the_same_profile_gives_the_same_picture() {
    assert_eq!(
        written(&fixture::profile(), Metric::LiveBytes),
        written(&fixture::profile(), Metric::LiveBytes)
    );
}

#[test]
fn a_name_in_two_modules_is_told_apart() {
    let mut profile = fixture::profile();
    let foreign = Frame {
        module: "/opt/lib/libother.so".to_owned(),
        ..profile.sites[1].stack.frames[0].clone()
    };
    profile.sites[1].stack.frames.push(foreign);
    let svg = written(&profile, Metric::LiveBytes);
    assert!(svg.contains("orders::Cache::fill() [libother.so]") && svg.contains("orders::Cache::fill() [orders]"));
}

#[test]
fn hostile_names_stay_text() {
    let mut profile = fixture::profile();
    profile.target.exe = "/tmp/<script>&\u{1b}\"".to_owned();
    let function = Some("</svg><script>alert(1)</script>\u{0}\u{b} 12 13".to_owned());
    profile.sites[0].stack = Stack {
        frames: vec![Frame {
            function,
            ..Frame::default()
        }],
        ..Stack::default()
    };
    for profile in [
        &profile,
        &Profile {
            sites: Vec::new(),
            ..profile.clone()
        },
    ] {
        let svg = written(profile, Metric::LiveBytes);
        assert!(!svg.contains("<script>a") && !svg.contains("<script>&"));
        assert!(
            !svg.chars()
                .any(|c| c.is_control() && c != '\n' && c != '\t' && c != '\r')
        );
    }
}

#[test]
fn values_beyond_reason_are_refused() {
    let mut profile = fixture::profile();
    profile.sites[0].live_bytes = u64::MAX;
    let error = SvgReport
        .write(&profile, &View::default(), &mut Vec::new())
        .expect_err("too large");
    assert!(error.to_string().contains("too large"));
}
