//! Where the fault tests break a plan. Without the feature `fault` this is nothing.

use croft_plan::step::Step;

use crate::apply::Outcome;

/// Fails when the environment says that this step is to fail.
#[cfg(feature = "fault")]
pub fn point(step: &Step) -> Outcome {
    match std::env::var("CROFT_FAULT") {
        Ok(text) if step.to_string() == text => {
            Err(crate::apply::Cause::because("fault injected by the test"))
        }
        _ => Ok(()),
    }
}

/// Nothing: this build cannot be told to fail.
#[cfg(not(feature = "fault"))]
pub fn point(_step: &Step) -> Outcome {
    Ok(())
}
