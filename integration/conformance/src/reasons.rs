//! Why croft-oci fails a program: one line each in `reasons.txt`.
use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// Reasons by program.
pub(crate) type Reasons = BTreeMap<String, String>;

/// The project's own reasons.
pub(crate) fn load() -> Result<Reasons> {
    parse(include_str!("../reasons.txt"))
}

/// Lines of `program: reason`; a line that starts with a blank goes on with the reason, `#` starts a comment.
fn parse(text: &str) -> Result<Reasons> {
    let mut reasons = Reasons::new();
    let mut last: Option<String> = None;
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if line.starts_with(' ') {
            let program = last.as_ref().context("reasons.txt goes on with a reason before any program")?;
            let reason = reasons.get_mut(program).expect("the last program is among them");
            *reason = format!("{reason} {}", line.trim());
            continue;
        }
        let (program, reason) =
            line.split_once(':').with_context(|| format!("reasons.txt: no colon in {line:?}"))?;
        if reason.trim().is_empty() || reasons.insert(program.to_owned(), reason.trim().to_owned()).is_some()
        {
            bail!("reasons.txt: {program} has no reason, or two");
        }
        last = Some(program.to_owned());
    }
    Ok(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_file_reads() {
        load().unwrap();
    }

    #[test]
    fn a_reason_may_go_on_and_may_not_be_missing() {
        let reasons = parse("# why\n\na: because\n  of that\nb: so\n").unwrap();
        assert_eq!(reasons["a"], "because of that");
        assert_eq!(reasons["b"], "so");
        for wrong in ["a:\n", "a\n", "a: x\na: y\n", "  a: x\n"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
