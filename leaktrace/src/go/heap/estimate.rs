//! Estimates from samples, and their error. Pure.

/// Half the width of the interval that holds nine of ten values of a normal distribution, in standard deviations.
const NINE_OF_TEN: f64 = 1.645;
/// By how much the error of these samples is larger than that of samples drawn by lot. They are not: what a program
/// allocates follows a pattern. Measured with programs that count what they allocate.
const DESIGN_EFFECT: f64 = 1.5;

/// An estimate of objects and bytes, and what it goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Samples.
    pub samples: u64,
    objects: f64,
    size: f64,
    /// What the variance of the bytes is estimated at.
    variance: f64,
    /// Bytes that may be another site's, or more of its own: all one way.
    shifted: f64,
}

/// For how many objects a sample stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    /// So many.
    pub objects: f64,
    /// What it adds to the variance of their number besides: it may stand for more than it was taken for.
    pub doubt: f64,
    /// Which part of them may be another site's, for a reason that more samples do not make go away.
    pub shifted: f64,
}

impl Weight {
    /// For itself, and so many more that are certain to have been allocated after it.
    pub fn of(objects: f64) -> Self {
        Self {
            objects,
            doubt: 0.0,
            shifted: 0.0,
        }
    }
}

impl Estimate {
    /// What one sample of an object of `object_size` bytes says.
    ///
    /// One object is seen itself, and each was to be seen with a chance of one in the weight (Horvitz and Thompson): where
    /// every object is seen, nothing is estimated.
    pub fn of(weight: Weight, object_size: u64) -> Self {
        let (size, objects) = (object_size as f64, weight.objects);
        let variance = objects * (objects - 1.0).max(0.0) + weight.doubt;
        Self {
            samples: 1,
            objects,
            size: objects * size,
            variance: variance * size * size,
            shifted: weight.shifted * objects * size,
        }
    }

    /// Objects.
    pub fn count(&self) -> u64 {
        self.objects.round() as u64
    }

    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.size.round() as u64
    }

    /// Half the width of the interval in which the truth lies in nine cases of ten, relative to the estimate; none
    /// without samples.
    pub fn error(&self) -> Option<f64> {
        let by_chance = NINE_OF_TEN * DESIGN_EFFECT * self.variance.sqrt();
        (self.bytes() > 0).then(|| by_chance.hypot(self.shifted) / self.size)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            samples: self.samples.saturating_add(other.samples),
            objects: self.objects + other.objects,
            size: self.size + other.size,
            variance: self.variance + other.variance,
            shifted: self.shifted + other.shifted,
        }
    }

    /// The same, with what one of its samples says changed.
    #[must_use]
    pub fn changed(self, before: Self, after: Self) -> Self {
        Self {
            samples: self.samples,
            objects: self.objects - before.objects + after.objects,
            size: self.size - before.size + after.size,
            variance: (self.variance - before.variance + after.variance).max(0.0),
            shifted: self.shifted,
        }
    }

    /// What can be expected of it where only a part is what it should be: no samples.
    #[must_use]
    pub fn part(self, part: f64) -> Self {
        Self {
            samples: 0,
            objects: self.objects * part,
            size: self.size * part,
            variance: self.variance * part,
            shifted: self.shifted * part,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_falls_with_the_number_of_samples() {
        let error = |samples: u64| {
            let all = (0..samples).map(|_| Estimate::of(Weight::of(100.0), 64));
            all.fold(Estimate::default(), Estimate::plus).error().unwrap()
        };
        assert!((error(1) - 2.455).abs() < 0.001, "{}", error(1));
        assert!((error(100) - 0.2455).abs() < 0.0001, "{}", error(100));
        assert_eq!(Estimate::default().error(), None);
        assert_eq!(Estimate::of(Weight::of(1.0), 64).error(), Some(0.0));
    }
}
