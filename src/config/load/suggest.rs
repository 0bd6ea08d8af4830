//! "Did you mean".

/// The known name nearest to `wrong`, if one is near enough to have been meant.
///
/// Near means that the optimal string alignment distance (a wrong, missing or extra letter, or two
/// swapped letters) is at most a third of the longer name, or half of it if the first three letters
/// agree. Among equally near names the first wins. Case and the difference between `-` and `_` are
/// ignored.
pub fn suggest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Names are not this long, and the distance takes quadratic time.
    if wrong.len() > 100 {
        return None;
    }
    let wrong = fold(wrong);
    known
        .filter(|name| name.len() <= 100)
        .filter_map(|name| Some((distance(&wrong, &fold(name))?, name)))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

fn fold(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

fn distance(wrong: &str, name: &str) -> Option<usize> {
    let longer = wrong.chars().count().max(name.chars().count());
    let agree = wrong.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
    let most = if agree >= 3 { longer / 2 } else { longer / 3 };
    let edits = strsim::osa_distance(wrong, name);
    (edits <= most).then_some(edits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(wrong: &str) -> Option<&'static str> {
        suggest(wrong, ["retry", "timeout", "rate_limit", "match", "on"].into_iter())
    }

    #[test]
    fn a_slip_finds_the_name_that_was_meant() {
        assert_eq!(meant("reties"), Some("retry"));
        assert_eq!(meant("retyr"), Some("retry"));
        assert_eq!(meant("rate-limit"), Some("rate_limit"));
        assert_eq!(meant("Timeout"), Some("timeout"));
        assert_eq!(meant("time"), Some("timeout"));
        assert_eq!(meant("timeouts_ms"), Some("timeout"));
    }

    #[test]
    fn another_word_suggests_nothing() {
        assert_eq!(meant("upstream"), None);
        assert_eq!(meant("x"), None);
        assert_eq!(meant(""), None);
        assert_eq!(meant(&"retry".repeat(1000)), None);
    }
}
