//! What croft-oci has to reach.

/// A bound of a ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// At most this much of the other's time.
    AtMost(f64),
    /// At least this much of the other's rate.
    AtLeast(f64),
}

/// A target and what was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What is compared.
    pub what: String,
    /// The bound.
    pub bound: Bound,
    /// The ratio; none when one of the two could not be measured.
    pub ratio: Option<f64>,
}

impl Verdict {
    /// Whether the target is reached.
    pub fn reached(&self) -> bool {
        match (self.ratio, self.bound) {
            (Some(ratio), Bound::AtMost(bound)) => ratio <= bound,
            (Some(ratio), Bound::AtLeast(bound)) => ratio >= bound,
            (None, _) => false,
        }
    }

    /// A row of the table of targets.
    pub fn row(&self) -> Vec<String> {
        let bound = match self.bound {
            Bound::AtMost(bound) => format!("≤ {bound}"),
            Bound::AtLeast(bound) => format!("≥ {bound}"),
        };
        let ratio = self.ratio.map_or_else(|| "not measured".to_owned(), |ratio| format!("{ratio:.2}"));
        vec![self.what.clone(), bound, ratio, if self.reached() { "yes" } else { "no" }.to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_not_reached() {
        let verdict = |bound, ratio| Verdict { what: String::new(), bound, ratio }.reached();
        assert!(verdict(Bound::AtMost(0.5), Some(0.5)) && !verdict(Bound::AtMost(0.5), Some(0.51)));
        assert!(verdict(Bound::AtLeast(3.0), Some(3.0)) && !verdict(Bound::AtLeast(3.0), Some(2.9)));
        assert!(!verdict(Bound::AtMost(1.0), None));
    }
}
