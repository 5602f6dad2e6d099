//! Files in git that are made from the code: man pages, the document of the API.

use std::fs;
use std::path::Path;

/// Panics unless the file at `path` is `text`, and then says what writes it: `test`, the words of `cargo test` for the calling test, with
/// `BLESS` in the environment.
#[track_caller]
pub fn check(path: &Path, text: &str, test: &str) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(kept == text, "{} is stale: BLESS=1 cargo test {test}", path.display());
}

#[cfg(test)]
mod tests {
    #[test]
    #[should_panic(expected = "page is stale: BLESS=1 cargo test -p croft man")]
    fn what_is_stale_is_said_with_what_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page");
        std::fs::write(&path, "now").unwrap();
        super::check(&path, "now", "-p croft man");
        super::check(&path, "then", "-p croft man");
    }
}
