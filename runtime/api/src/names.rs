//! Names that people give: which there can be, and which was meant.

/// The longest name: it becomes the host name, which the kernel cuts off after 64 bytes.
const LONGEST: usize = 63;

/// Refuses a name that is no host name, or could be taken for something else.
///
/// # Errors
/// In words.
pub fn check(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if !begins || !name.chars().all(fits) || name.len() > LONGEST {
        return Err(format!(
            "{name:?} is no name: it begins with a letter or a digit, goes on with those, '_', '.' and '-', and has at most {LONGEST} of them"
        ));
    }
    Ok(())
}

/// The name among `known` that `name` may have been meant to be.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, near) = known.map(|other| (distance(name, other), other)).min()?;
    (distance <= name.len().div_ceil(3)).then_some(near)
}

/// How many letters have to be changed, added or taken away (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", "-a", ".", "a/b", "a b", "ä", &"a".repeat(64)] {
            assert!(check(name).is_err(), "{name}");
        }
        check("web-1.example_x").unwrap();
    }

    #[test]
    fn the_nearest_name_is_found() {
        assert_eq!(nearest("wbe", ["web", "db"].into_iter()), None);
        assert_eq!(nearest("webb", ["web", "db"].into_iter()), Some("web"));
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
