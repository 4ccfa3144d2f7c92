//! Growth as the Theil–Sen slope: the median of the slopes between all pairs of points.
//!
//! One outlier, a buffer that is there for one moment, does not move a median; it would drag a least-squares line.

/// Bytes outstanding at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Nanoseconds since any fixed moment.
    pub at_ns: u64,
    /// Bytes outstanding.
    pub bytes: u64,
}

/// How fast bytes grow. Every number is finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// Bytes per second.
    pub per_s: f64,
    /// Ends of the interval that holds the true slope with 95 % confidence, in bytes per second, if the noise of the
    /// points is independent; `None` below five points, where no such interval exists.
    pub interval: Option<(f64, f64)>,
}

/// Most points that a slope is taken over. Pairs grow with the square; more points say nothing new.
const MOST_POINTS: usize = 64;

/// The slope through `points`, which are in the order of time; `None` unless two of them differ in time.
///
/// Of many points, 64 evenly chosen ones are used.
pub fn theil_sen(points: &[Point]) -> Option<Slope> {
    let points = thinned(points);
    let mut slopes = pair_slopes(&points);
    slopes.sort_unstable_by(f64::total_cmp);
    Some(Slope {
        per_s: median(&slopes)?,
        interval: interval(&slopes, points.len()),
    })
}

fn thinned(points: &[Point]) -> Vec<Point> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let last = points.len() - 1;
    (0..MOST_POINTS)
        .filter_map(|index| points.get(index * last / (MOST_POINTS - 1)).copied())
        .collect()
}

fn pair_slopes(points: &[Point]) -> Vec<f64> {
    let pairs = points
        .iter()
        .enumerate()
        .flat_map(|(index, a)| points.iter().skip(index + 1).map(move |b| (a, b)));
    pairs.filter_map(|(a, b)| slope_between(*a, *b)).collect()
}

fn slope_between(a: Point, b: Point) -> Option<f64> {
    let seconds = b.at_ns.checked_sub(a.at_ns).filter(|ns| *ns > 0)? as f64 / 1e9;
    Some((b.bytes as f64 - a.bytes as f64) / seconds)
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, upper))
}

/// Sen's interval (1968): the ranks among the sorted slopes between which Kendall's S is not significant at 5 %.
fn interval(sorted: &[f64], points: usize) -> Option<(f64, f64)> {
    let n = points as f64;
    let spread = 1.96 * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    // Rounded: at five points the approximation falls just short of the exact rank of 1.
    let rank = ((sorted.len() as f64 - spread) / 2.0).round();
    if rank < 1.0 {
        return None;
    }
    let below = rank as usize - 1;
    Some((*sorted.get(below)?, *sorted.get(sorted.len().checked_sub(below + 1)?)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(count: u64, bytes: impl Fn(u64) -> u64) -> Vec<Point> {
        (0..count)
            .map(|index| Point {
                at_ns: index * 1_000_000_000,
                bytes: bytes(index),
            })
            .collect()
    }

    #[test]
    fn a_straight_line_has_its_slope() {
        let slope = theil_sen(&line(10, |second| 500 + 64 * second)).expect("ten points");
        assert_eq!(
            slope,
            Slope {
                per_s: 64.0,
                interval: Some((64.0, 64.0))
            }
        );
    }

    #[test]
    fn one_outlier_does_not_move_it() {
        let slope = theil_sen(&line(15, |second| if second == 7 { 1 << 30 } else { 10 * second })).expect("points");
        assert!((slope.per_s - 10.0).abs() < 0.01, "{slope:?}");
    }

    #[test]
    fn noise_around_a_level_leaves_zero_in_the_interval() {
        let slope = theil_sen(&line(20, |second| 1000 + [40, 0, 70, 20, 55][second as usize % 5])).expect("points");
        let (low, high) = slope.interval.expect("enough points");
        assert!(low <= 0.0 && high >= 0.0, "{slope:?}");
    }

    #[test]
    fn few_points_have_a_slope_and_no_interval() {
        assert_eq!(theil_sen(&line(1, |_| 5)), None);
        assert_eq!(
            theil_sen(&line(4, |second| 8 * second)),
            Some(Slope {
                per_s: 8.0,
                interval: None
            })
        );
        assert!(
            theil_sen(&line(5, |second| 8 * second))
                .expect("points")
                .interval
                .is_some()
        );
    }

    #[test]
    fn points_at_one_moment_have_no_slope() {
        let at_once = [Point { at_ns: 3, bytes: 1 }, Point { at_ns: 3, bytes: 9 }];
        assert_eq!(theil_sen(&at_once), None);
    }

    proptest! {
        #[test]
        fn always_finite_and_ordered(points in prop::collection::vec((any::<u64>(), any::<u64>()), 0..100)) {
            let mut points: Vec<Point> = points.into_iter().map(|(at_ns, bytes)| Point { at_ns, bytes }).collect();
            points.sort_by_key(|point| point.at_ns);
            if let Some(slope) = theil_sen(&points) {
                prop_assert!(slope.per_s.is_finite());
                if let Some((low, high)) = slope.interval {
                    prop_assert!(low.is_finite() && high.is_finite() && low <= slope.per_s && slope.per_s <= high);
                }
            }
        }
    }
}
