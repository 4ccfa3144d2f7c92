//! sqlite3 at work on a database in memory.

use std::process::Command;

use anyhow::{Result, ensure};
use leaktrace_tests::child::run;
use leaktrace_tests::tracer;
use leaktrace_tests::trial::traced_program;
use libtest_mimic::Trial;

use super::sound;

const WORK: &str = "create table t(a integer primary key, b text);
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
      insert into t select i, hex(i * 7919) from n;
    create index tb on t(b);
    select count(*), sum(a), min(b), max(b), sum(length(b)) from t;
    select count(*) from t x join t y on x.b = y.b;
    select group_concat(a) from (select a from t order by b limit 20);";

pub fn trials() -> Vec<Trial> {
    vec![traced_program("programs::sqlite3", "sqlite3", right_answers)]
}

fn right_answers() -> Result<()> {
    let untraced = run(Command::new("sqlite3").args([":memory:", WORK]))?;
    ensure!(untraced.status.success() && untraced.out.len() == 3, "{untraced:?}");
    let report = tracer::launch(&[], &["sqlite3", ":memory:", WORK])?.finish()?;
    ensure!(
        report.ended.out.starts_with(&untraced.out),
        "traced {:?}, untraced {:?}",
        report.ended.out,
        untraced.out
    );
    sound(&report.profile)?;
    ensure!(
        report.profile.accounting.allocations > 1000,
        "only {} allocations",
        report.profile.accounting.allocations
    );
    Ok(())
}
