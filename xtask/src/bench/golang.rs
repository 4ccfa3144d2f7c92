//! What a trace costs a web service in Go: traced and untraced in turns, at a rate as services have it, and as fast as
//! the machine can.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{
    Setting, say,
    service::{self, Seen, Service},
    table::{Row, Spread},
    tracer,
};

/// Requests a second; none: as many as can be answered.
const RATES: [Option<u32>; 2] = [Some(1500), None];

/// A round: the service untraced, and traced, with the share of a processor that leaktrace itself used.
struct Round {
    untraced: Seen,
    traced: Seen,
    own_cpu: f64,
    samples_per_s: f64,
}

/// Measures, where there is a Go.
pub fn measure(setting: &Setting) -> Result<Vec<Row>> {
    let Some(go) = service::toolchain() else {
        return Ok(vec![
            Row::new("go service", "", "", None).noted("no Go (cargo xtask setup --tests)"),
        ]);
    };
    service::build(&go)?;
    let mut rows = Vec::new();
    for rate in RATES {
        rows.extend(at(rate, setting)?);
    }
    Ok(rows)
}

fn at(rate: Option<u32>, setting: &Setting) -> Result<Vec<Row>> {
    let (rounds, long) = if setting.quick {
        (3, Duration::from_secs(4))
    } else {
        (9, Duration::from_secs(8))
    };
    let benchmark = rate.map_or("go service, full speed".to_owned(), |rate| {
        format!("go service, {rate} requests/s")
    });
    say(&format!("{benchmark}, {rounds} rounds"));
    let mut service = Service::start()?;
    // Connections, caches and the heap find their size.
    service.ask(rate, Duration::from_secs(2))?;
    let mut all = Vec::new();
    for round in 0..rounds {
        all.push(one(&mut service, rate, long, round % 2 == 0, setting)?);
    }
    Ok(rows(&benchmark, &all))
}

/// One after the other; in every second round the traced one first.
fn one(
    service: &mut Service,
    rate: Option<u32>,
    long: Duration,
    untraced_first: bool,
    setting: &Setting,
) -> Result<Round> {
    let before = untraced_first.then(|| service.ask(rate, long)).transpose()?;
    let (traced, own_cpu, samples_per_s) = traced(service, rate, long, setting)?;
    let untraced = before.map_or_else(|| service.ask(rate, long), Ok)?;
    Ok(Round {
        untraced,
        traced,
        own_cpu,
        samples_per_s,
    })
}

fn traced(service: &mut Service, rate: Option<u32>, long: Duration, setting: &Setting) -> Result<(Seen, f64, f64)> {
    let tracer = tracer::leaktrace(&setting.leaktrace, service.pid(), &[])?;
    let before = service::cpu_time(tracer.pid()).unwrap_or_default();
    let seen = service.ask(rate, long)?;
    let used = service::cpu_time(tracer.pid())
        .unwrap_or_default()
        .saturating_sub(before);
    let ended = tracer.end()?;
    let samples = ended.profile["go"]["samples"].as_f64().unwrap_or(0.0);
    ensure!(samples > 0.0, "a trace saw nothing: {}", ended.said.join(" | "));
    ensure!(
        ended.is_complete(),
        "a trace was not complete: {}",
        ended.profile["accounting"]
    );
    let long = long.as_secs_f64();
    Ok((seen, used.as_secs_f64() / long * 100.0, samples / long))
}

fn rows(benchmark: &str, rounds: &[Round]) -> Vec<Row> {
    let pair = |what: &str, unit, pick: fn(&Seen) -> f64| {
        let of = |which: fn(&Round) -> &Seen| Spread::of(rounds.iter().map(|round| pick(which(round))));
        let ratios = rounds.iter().map(|round| pick(&round.traced) / pick(&round.untraced));
        let mut traced = Row::new(benchmark, &format!("{what}, traced"), unit, of(|round| &round.traced));
        traced.to_untraced = Spread::of(ratios);
        [
            Row::new(
                benchmark,
                &format!("{what}, untraced"),
                unit,
                of(|round| &round.untraced),
            ),
            traced,
        ]
    };
    let mut rows = Vec::new();
    rows.extend(pair("throughput", "requests/s", |seen| seen.throughput));
    rows.extend(pair("p50", "µs", |seen| seen.p50_us));
    rows.extend(pair("p99", "µs", |seen| seen.p99_us));
    rows.extend(pair("CPU of the service", "µs per request", |seen| seen.cpu_us));
    let own = Spread::of(rounds.iter().map(|round| round.own_cpu));
    let samples = Spread::of(rounds.iter().map(|round| round.samples_per_s));
    rows.push(Row::new(benchmark, "CPU of leaktrace", "% of a processor", own));
    rows.push(Row::new(benchmark, "samples", "a second", samples));
    rows
}
