//! Draws a place at random, each with the probability of its weight.
//!
//! The alias method of Walker, built as Vose has it ("A linear algorithm for generating random numbers
//! with a given distribution", 1991): one look at a table for each draw, however many places there are.

/// Places `0..len` by weight.
#[derive(Debug)]
pub(super) struct Sampler {
    len: u32,
    /// For each place: up to this of 2^32 the draw is the place itself, beyond it is the other. Empty
    /// if all weights are equal.
    columns: Box<[Column]>,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    own: u32,
    other: u32,
}

impl Sampler {
    /// For weights above 0.
    pub(super) fn new(weights: &[u32]) -> Self {
        let len = weights.len() as u32;
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            return Sampler { len, columns: Box::default() };
        }
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        // Each column's share of the average: what is above 1 fills the columns below 1.
        let mut shares: Vec<f64> =
            weights.iter().map(|weight| f64::from(*weight) * f64::from(len) / sum).collect();
        let mut columns: Vec<Column> =
            (0..len).map(|place| Column { own: u32::MAX, other: place }).collect();
        let (mut below, mut above): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|place| shares[*place] < 1.0);
        while let (Some(less), Some(more)) = (below.pop(), above.last().copied()) {
            columns[less] =
                Column { own: (shares[less] * f64::from(u32::MAX)) as u32, other: more as u32 };
            shares[more] -= 1.0 - shares[less];
            if shares[more] < 1.0 {
                above.pop();
                below.push(more);
            }
        }
        Sampler { len, columns: columns.into() }
    }

    /// A place, for a number that is uniform over all of `u64`. There must be one.
    pub(super) fn draw(&self, random: u64) -> usize {
        // Lemire's multiplication, in place of a division.
        let place = ((random >> 32) * u64::from(self.len)) >> 32;
        match self.columns.get(place as usize) {
            Some(column) if (random as u32) > column.own => column.other as usize,
            Some(_) | None => place as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[u32]) -> Vec<f64> {
        let sampler = Sampler::new(weights);
        let mut random = fastrand::Rng::with_seed(7);
        let mut counts = vec![0_u32; weights.len()];
        (0..100_000).for_each(|_| counts[sampler.draw(random.u64(..))] += 1);
        counts.iter().map(|count| f64::from(*count) / 100_000.0).collect()
    }

    #[test]
    fn each_place_is_drawn_as_often_as_its_weight_says() {
        for weights in [&[1][..], &[1, 1, 1], &[1, 3], &[1000, 1, 1], &[5, 1, 1, 7, 2, 2, 900]] {
            let sum: u32 = weights.iter().sum();
            for (share, weight) in shares(weights).iter().zip(weights) {
                let wanted = f64::from(*weight) / f64::from(sum);
                assert!((share - wanted).abs() < 0.006, "{weights:?}: {share} for {wanted}");
            }
        }
    }

    #[test]
    fn the_largest_and_the_smallest_number_are_places() {
        for weights in [&[1][..], &[1, 1, 1], &[1, 3], &[1000, 1, 1]] {
            let sampler = Sampler::new(weights);
            assert!(sampler.draw(0) < weights.len());
            assert!(sampler.draw(u64::MAX) < weights.len());
        }
    }
}
