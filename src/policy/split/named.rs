//! Finds the upstream that a path names. There may be many, and a request looks for one each time.

use super::config::Named;

/// The upstreams that may be named, found by their names.
#[derive(Debug)]
pub struct Locator {
    named: Named,
    /// Places in the list, in the order of the names.
    sorted: Box<[usize]>,
}

impl Locator {
    /// Of a configured list.
    pub fn new(named: Named) -> Self {
        let mut sorted: Box<[usize]> = (0..named.among.len()).collect();
        sorted.sort_unstable_by_key(|place| &named.among[*place]);
        Locator { named, sorted }
    }

    /// As configured.
    pub fn config(&self) -> &Named {
        &self.named
    }

    /// The place in the list of the upstream with this name.
    pub fn place(&self, name: &str) -> Option<usize> {
        let at = |place: &usize| self.named.among[*place].as_str().cmp(name);
        self.sorted.binary_search_by(at).ok().map(|found| self.sorted[found])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_many_names_is_found_at_its_place_and_no_other_is() {
        let among: Vec<_> = (0..1000).rev().map(|n| format!("service-{n}")).collect();
        let locator = Locator::new(Named { parameter: "service".to_owned(), among });
        for (place, name) in locator.config().among.iter().enumerate() {
            assert_eq!(locator.place(name), Some(place));
        }
        for other in ["", "service", "service-1000", "service-9990", "SERVICE-1", "service-01"] {
            assert_eq!(locator.place(other), None, "{other}");
        }
    }
}
