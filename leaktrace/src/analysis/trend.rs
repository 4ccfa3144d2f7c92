//! What a series of live bytes does: grows, levels off, stays, shrinks, or varies too much to say. Pure.

use super::growth::{Point, Slope, theil_sen};

/// Fewest points about which anything is said: below, no interval of confidence exists.
pub const FEWEST_POINTS: usize = 5;

/// What a series does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trend {
    /// Only this many points: too few to say.
    TooFew(usize),
    /// Grows, and still did in the newer half.
    Growing(Slope),
    /// Has grown, and hardly in the newer half: a cache that fills up looks like this.
    Levelling(Slope),
    /// Does not grow.
    Flat(Slope),
    /// Becomes less.
    Shrinking(Slope),
    /// Could be growing or not: it varies too much.
    Unsteady(Slope),
}

/// What `points`, in the order of time, do.
pub fn trend(points: &[Point]) -> Trend {
    let (true, Some(slope)) = (points.len() >= FEWEST_POINTS, theil_sen(points)) else {
        return Trend::TooFew(points.len());
    };
    match slope.interval {
        None => Trend::TooFew(points.len()),
        Some((low, _)) if low > 0.0 && stands_out(points, slope) => grown(points, slope),
        Some((low, _)) if low > 0.0 => Trend::Unsteady(slope),
        Some((_, high)) if high < 0.0 => Trend::Shrinking(slope),
        Some((_, high)) if could_matter(points, high) => unsteady(points, slope),
        Some(_) => Trend::Flat(slope),
    }
}

/// Series that fill something grow fast first: growth that has sunk below a quarter of the whole's is no longer meant.
fn grown(points: &[Point], slope: Slope) -> Trend {
    let newer = points.get(points.len() / 2..).and_then(theil_sen);
    if newer.is_some_and(|newer| newer.per_s >= slope.per_s / 4.0) {
        Trend::Growing(slope)
    } else {
        Trend::Levelling(slope)
    }
}

/// Whether the growth is more than twice what the points scatter around it. The interval takes their noise for
/// independent, and that of memory is not: a wave cut at the right moment would pass for growth.
fn stands_out(points: &[Point], slope: Slope) -> bool {
    let Some(first) = points.first() else { return false };
    let seconds = |point: &Point| point.at_ns.saturating_sub(first.at_ns) as f64 / 1e9;
    let mut offsets: Vec<f64> = points
        .iter()
        .map(|point| point.bytes as f64 - slope.per_s * seconds(point))
        .collect();
    let middle = median(&mut offsets);
    let mut scatter: Vec<f64> = offsets.iter().map(|offset| (offset - middle).abs()).collect();
    points
        .last()
        .is_some_and(|last| slope.per_s * seconds(last) > 2.0 * median(&mut scatter))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// What varied at first may have come to rest: programs fill their caches and then stay.
fn unsteady(points: &[Point], slope: Slope) -> Trend {
    let newer = points
        .get(points.len() / 2..)
        .filter(|newer| newer.len() >= FEWEST_POINTS);
    let rest = newer
        .zip(newer.and_then(theil_sen))
        .and_then(|(newer, slope)| Some((newer, slope, slope.interval?)));
    match rest {
        Some((newer, slope, (low, high))) if low <= 0.0 && !could_matter(newer, high) => Trend::Flat(slope),
        _ => Trend::Unsteady(slope),
    }
}

/// Whether growth at the upper end of the interval would have added a quarter of the level over the series.
fn could_matter(points: &[Point], high_per_s: f64) -> bool {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return false;
    };
    let seconds = last.at_ns.saturating_sub(first.at_ns) as f64 / 1e9;
    let mut levels: Vec<f64> = points.iter().map(|point| point.bytes as f64).collect();
    high_per_s * seconds > median(&mut levels) / 4.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u64]) -> Trend {
        let points = bytes.iter().zip(0..).map(|(bytes, second)| Point {
            at_ns: second * 1_000_000_000,
            bytes: *bytes,
        });
        trend(&points.collect::<Vec<_>>())
    }

    #[test]
    fn few_points_say_nothing() {
        assert_eq!(of(&[1, 2, 3, 4]), Trend::TooFew(4));
        assert_eq!(of(&[]), Trend::TooFew(0));
    }

    #[test]
    fn steady_growth_is_growing() {
        assert!(matches!(of(&[10, 20, 30, 40, 50]), Trend::Growing(slope) if (slope.per_s - 10.0).abs() < 1e-9));
        assert!(matches!(
            of(&[100, 210, 290, 410, 500, 590, 720, 800]),
            Trend::Growing(_)
        ));
    }

    #[test]
    fn a_filling_cache_is_levelling() {
        assert!(matches!(
            of(&[10, 50, 80, 95, 99, 100, 100, 100, 100, 100]),
            Trend::Levelling(_)
        ));
    }

    #[test]
    fn a_wave_is_not_growth() {
        let wave: Vec<u64> = (0..20).map(|at| at * 7 % 20 * 1000).collect();
        assert!(matches!(of(&wave), Trend::Unsteady(slope) if slope.interval.is_some_and(|(low, _)| low > 0.0)));
    }

    #[test]
    fn a_level_is_flat() {
        assert!(matches!(of(&[4096; 8]), Trend::Flat(_)));
        assert!(matches!(
            of(&[1000, 1010, 990, 1005, 995, 1002, 1000, 998]),
            Trend::Flat(_)
        ));
    }

    #[test]
    fn shrinking_and_unsteady_are_told_apart() {
        assert!(matches!(of(&[90, 80, 70, 60, 50, 40]), Trend::Shrinking(_)));
        assert!(matches!(
            of(&[0, 9000, 100, 8000, 9000, 0, 7000, 12000]),
            Trend::Unsteady(_)
        ));
    }
}
