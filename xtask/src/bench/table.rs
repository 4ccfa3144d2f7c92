//! Numbers as a table for people, and as JSON for programs. Pure.

use serde_json::{Value, json};

/// The spread of a number over rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Least.
    pub min: f64,
    /// Middle; of an even number of rounds the upper one.
    pub median: f64,
    /// Most.
    pub max: f64,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// The benchmark.
    pub benchmark: String,
    /// What was measured.
    pub what: String,
    /// Its unit.
    pub unit: &'static str,
    /// The numbers.
    pub value: Option<Spread>,
    /// Times the traps alone, round by round.
    pub to_floor: Option<Spread>,
    /// Times the untraced program, round by round.
    pub to_untraced: Option<Spread>,
    /// What must be known besides.
    pub note: String,
}

impl Spread {
    /// The spread of what all rounds gave; nothing without rounds.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            min: *sorted.first()?,
            median: *sorted.get(sorted.len() / 2)?,
            max: *sorted.last()?,
        })
    }
}

impl Row {
    /// A line with numbers in `unit`.
    pub fn new(benchmark: &str, what: &str, unit: &'static str, value: Option<Spread>) -> Self {
        Self {
            benchmark: benchmark.into(),
            what: what.into(),
            unit,
            value,
            to_floor: None,
            to_untraced: None,
            note: String::new(),
        }
    }

    /// The same with a note.
    pub fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// The table, aligned, without a line feed at its end.
pub fn text(rows: &[Row]) -> String {
    let head = [
        "benchmark",
        "measure",
        "unit",
        "min",
        "median",
        "max",
        "x floor",
        "x untraced",
        "",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    for (index, row) in rows.iter().enumerate() {
        let repeated = index > 0 && rows[index - 1].benchmark == row.benchmark;
        lines.push(cells(row, repeated));
    }
    let widths: Vec<usize> = (0..head.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let lines: Vec<String> = lines.iter().map(|line| aligned(line, &widths)).collect();
    lines.join("\n")
}

/// All numbers.
pub fn json(rows: &[Row], machine: &Value) -> Value {
    let spread = |spread: Option<Spread>| spread.map(|s| json!({"min": s.min, "median": s.median, "max": s.max}));
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "benchmark": row.benchmark,
                "measure": row.what,
                "unit": row.unit,
                "value": spread(row.value),
                "times_floor": spread(row.to_floor),
                "times_untraced": spread(row.to_untraced),
                "note": row.note,
            })
        })
        .collect();
    json!({"machine": machine, "rows": rows})
}

fn cells(row: &Row, repeated: bool) -> [String; 9] {
    let value = |pick: fn(&Spread) -> f64| row.value.as_ref().map(|s| number(pick(s))).unwrap_or_default();
    let times = |spread: Option<Spread>| spread.map(|s| ratios(&s)).unwrap_or_default();
    [
        if repeated { String::new() } else { row.benchmark.clone() },
        row.what.clone(),
        row.unit.to_owned(),
        value(|s| s.min),
        value(|s| s.median),
        value(|s| s.max),
        times(row.to_floor),
        times(row.to_untraced),
        row.note.clone(),
    ]
}

/// `1.24–1.31–1.40`.
fn ratios(spread: &Spread) -> String {
    let short = |ratio: f64| {
        if ratio < 10.0 {
            format!("{ratio:.2}")
        } else {
            number(ratio)
        }
    };
    [spread.min, spread.median, spread.max].map(short).join("–")
}

/// Three digits that mean something, thousands apart.
fn number(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Words to the left, numbers to the right.
fn aligned(cells: &[String; 9], widths: &[usize]) -> String {
    let words = [true, true, true, false, false, false, false, false, true];
    let padded = cells.iter().zip(widths).zip(words).map(|((cell, &width), word)| {
        if word {
            format!("{cell:<width$}")
        } else {
            format!("{cell:>width$}")
        }
    });
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_sorted_numbers() {
        let spread = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!(
            spread,
            Some(Spread {
                min: 1.0,
                median: 2.0,
                max: 3.0
            })
        );
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn columns_are_aligned_and_benchmarks_named_once() {
        let mut traced = Row::new("pair", "traced", "ns", Spread::of([2500.0, 2400.0, 2600.0])).noted("14 probes");
        traced.to_floor = Spread::of([1.2, 1.3, 1.25]);
        traced.to_untraced = Spread::of([300.0, 290.0, 310.0]);
        let rows = [Row::new("pair", "untraced", "ns", Spread::of([8.25])), traced];
        let expected = "\
benchmark  measure   unit    min  median    max         x floor   x untraced
pair       untraced  ns     8.25    8.25   8.25
           traced    ns    2,400   2,500  2,600  1.20–1.25–1.30  290–300–310  14 probes";
        assert_eq!(text(&rows), expected);
    }

    #[test]
    fn programs_get_every_number() {
        let rows = [Row::new("live", "report", "ms", Spread::of([7.0]))];
        let json = json(&rows, &json!({"cores": 2}));
        assert_eq!(json["rows"][0]["value"]["median"], 7.0);
        assert_eq!(json["rows"][0]["times_floor"], Value::Null);
        assert_eq!(json["machine"]["cores"], 2);
    }
}
