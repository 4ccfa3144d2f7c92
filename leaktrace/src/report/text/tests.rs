use super::*;
use crate::profile::{Exit, Holder, Site, TimelinePoint, Verdict, fixture};

fn written(profile: &Profile, view: &View) -> String {
    let mut out = Vec::new();
    TextReport.write(profile, view, &mut out).expect("writes");
    String::from_utf8(out).expect("text")
}

fn headline_of(live_bytes: impl Fn(u64) -> u64) -> String {
    let mut profile = fixture::profile();
    let point = |at| TimelinePoint {
        at_ns: at * 1_000_000_000,
        live_bytes: live_bytes(at),
        ..TimelinePoint::default()
    };
    profile.timeline = (0..20).map(point).collect();
    headline::headline(&profile)
}

#[test]
fn piped_it_is_whole() {
    insta::assert_snapshot!(written(&fixture::profile(), &View::default()));
}

#[test]
fn on_a_terminal_it_fits() {
    let text = written(
        &fixture::profile(),
        &View {
            width: Some(80),
            top: 2,
            ..View::default()
        },
    );
    insta::assert_snapshot!(text);
}

#[test]
fn what_holds_the_blocks_is_told_with_the_way() {
    let mut profile = fixture::profile();
    profile.sites.truncate(1);
    let holder = |root: &str, chain: &[&str], held| Holder {
        root: root.to_owned(),
        chain: chain.iter().map(|&link| link.to_owned()).collect(),
        held,
        of: 192,
    };
    profile.sites[0].held_by = Some("main.sessions (188 of 192 objects looked for)".to_owned());
    profile.sites[0].holders = vec![
        holder("main.sessions", &["48-byte object", "object of main.newSession"], 188),
        holder("the main goroutine's stack", &[], 2),
    ];
    let text = written(&profile, &View::default());
    let told = "\n      via 48-byte object → object of main.newSession\n      2 of 192 are held by the main goroutine's stack\n";
    assert!(text.contains(told), "{text}");
}

#[test]
fn nothing_outstanding_is_said_first() {
    insta::assert_snapshot!(written(&fixture::empty(), &View::default()));
}

#[test]
fn colours_only_when_asked() {
    let coloured = written(
        &fixture::profile(),
        &View {
            colour: true,
            ..View::default()
        },
    );
    assert!(coloured.contains("\x1b[33mgrowing\x1b[0m"));
    assert!(!written(&fixture::profile(), &View::default()).contains('\x1b'));
}

#[test]
fn sites_left_out_are_told() {
    let text = written(
        &fixture::profile(),
        &View {
            top: 1,
            ..View::default()
        },
    );
    assert!(
        text.contains("2 more sites hold 343 KiB in 1,210 blocks (--top shows more)"),
        "{text}"
    );
    let text = written(
        &fixture::profile(),
        &View {
            min_bytes: 100_000,
            ..View::default()
        },
    );
    assert!(
        text.contains("1 more site holds 87.1 KiB in 1,209 blocks (--min-bytes shows more)"),
        "{text}"
    );
}

#[test]
fn the_headline_says_how_sure_growth_is() {
    assert!(headline_of(|at| 1000 * at).contains("growing 1,000 B/s (steady: 1 site accounts for 100 % of it)"));
    assert!(headline_of(|_| 5000).ends_with("not growing"));
    assert!(headline_of(|at| 100_000 - 1000 * at).ends_with("shrinking 1,000 B/s"));
    assert!(headline_of(|at| 1000 * at.min(12)).contains("growth levelling off"));
    assert!(headline_of(|at| 1000 * at.min(4)).ends_with("not growing"));
    assert!(headline_of(|at| at * 7 % 20 * 1000).ends_with("varying too much to say whether it grows"));
    let short = Profile {
        timeline: Vec::new(),
        go: None,
        ..fixture::profile()
    };
    assert!(headline::headline(&short).ends_with("too short to say whether it grows"));
}

#[test]
fn proven_leaks_are_in_the_headline() {
    let mut profile = fixture::profile();
    profile.sites[0].verdict = Verdict::Leak;
    assert!(headline::headline(&profile).ends_with("; 12.1 MiB of it leaked by 1 site"));
}

#[test]
fn growth_of_many_sites_is_shared_out() {
    let mut profile = fixture::profile();
    let site = |rate: f64| Site {
        growth_bytes_per_s: rate,
        ..profile.sites[0].clone()
    };
    profile.sites = [50.0, 30.0, 17.0, 2.0, 1.0, -5.0].map(site).to_vec();
    assert!(headline::headline(&profile).contains("(steady: 3 sites account for 97 % of it)"));
}

#[test]
fn estimates_and_the_end_of_the_process_are_told() {
    let mut profile = fixture::profile();
    profile.accounting.sample_bytes = 524_288;
    profile.target.exit = Some(Exit::Signal(11));
    let text = written(&profile, &View::default());
    assert!(text.contains("\nEstimated: one block per 512 KiB allocated"), "{text}");
    assert!(text.contains("; killed by signal 11\n"));
}

#[test]
fn hostile_texts_do_not_reach_the_terminal() {
    let mut profile = fixture::profile();
    let evil = "\x1b]0;owned\x07\n".to_owned();
    profile.target.command.clone_from(&evil);
    profile.accounting.lost.insert(evil.clone(), 1);
    let site = &mut profile.sites[0];
    site.why.clone_from(&evil);
    site.held_by = Some(evil.clone());
    for frame in &mut site.stack.frames {
        frame.function = None;
        frame.module.clone_from(&evil);
        frame.build_id = Some(evil.clone());
    }
    site.stack.frames[0].function = Some(evil.clone());
    site.stack.frames[0].file = Some(evil);
    for width in [None, Some(80)] {
        let text = written(
            &profile,
            &View {
                width,
                ..View::default()
            },
        );
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
}
