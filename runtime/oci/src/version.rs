//! `--version`, in runc's form: Docker reads the first two lines, others the third.

/// The version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that was built, or `unknown` outside a repository.
pub const COMMIT: &str = env!("CROFT_COMMIT");

/// The text of `--version`.
pub fn text() -> String {
    let mut text =
        format!("croft-oci version {VERSION}\ncommit: {COMMIT}\nspec: {}\n", croft_plan::spec::OCI_VERSION);
    if let Some(libseccomp) = croft_engine::features::libseccomp_version() {
        text.push_str(&format!("libseccomp: {libseccomp}\n"));
    }
    text
}
