//! `features`: what this build can do, in the form of runtime-spec features.md.

use std::process::ExitCode;

use anyhow::Result;

/// Prints the features.
pub fn run() -> Result<ExitCode> {
    let mut features = croft_engine::features::features();
    features["annotations"]["org.croft.version"] = crate::version::VERSION.into();
    features["annotations"]["org.croft.commit"] = crate::version::COMMIT.into();
    super::print(&format!("{}\n", serde_json::to_string_pretty(&features)?))?;
    Ok(ExitCode::SUCCESS)
}
