//! Credentials: Docker's `config.json` and the credential helpers that it names (docker-credential-*).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use oci_client::secrets::RegistryAuth;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// Docker's name for its own registry in this file.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The file of credentials, as Docker, Podman and skopeo use it.
#[derive(Debug, Clone)]
pub struct Credentials {
    path: PathBuf,
}

/// The file's parts that matter here; what else is in it is kept as it is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    auths: BTreeMap<String, Login>,
    #[serde(rename = "credHelpers", default, skip_serializing_if = "BTreeMap::is_empty")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore", default, skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Login {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth: Option<String>,
    #[serde(rename = "identitytoken", default, skip_serializing_if = "Option::is_none")]
    identity_token: Option<String>,
    #[serde(rename = "registrytoken", default, skip_serializing_if = "Option::is_none")]
    registry_token: Option<String>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Credentials {
    /// Those in the file `path`, which need not exist.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// How to log in at `registry`. Blocks while a helper runs.
    pub fn find(&self, registry: &str) -> Result<RegistryAuth> {
        let file = self.read()?;
        let names = names(registry);
        let helper = names.iter().find_map(|name| file.helpers.get(name));
        if let Some(helper) = helper.or(file.store.as_ref())
            && let Some(auth) = ask(helper, &names)?
        {
            return Ok(auth);
        }
        let login = names.iter().find_map(|name| file.auths.get(name));
        let Some(login) = login else { return Ok(RegistryAuth::Anonymous) };
        if let Some(token) = &login.registry_token {
            return Ok(RegistryAuth::Bearer(token.clone()));
        }
        if login.identity_token.as_ref().is_some_and(|token| !token.is_empty()) {
            let why = "an identity token is stored, which is not supported: log in with a password or an access token";
            return Err(Error::Refused { what: format!("credentials for {registry}"), why: why.to_owned() });
        }
        let Some(auth) = login.auth.as_ref().filter(|auth| !auth.is_empty()) else {
            return Ok(RegistryAuth::Anonymous);
        };
        let broken = || {
            Error::malformed(
                self.path.display().to_string(),
                format!("auth of {registry} is broken: log in again"),
            )
        };
        let decoded = base64::engine::general_purpose::STANDARD.decode(auth.trim()).map_err(|_| broken())?;
        let text = String::from_utf8(decoded).map_err(|_| broken())?;
        let (user, password) = text.split_once(':').ok_or_else(broken)?;
        Ok(RegistryAuth::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned()))
    }

    /// Stores a login. The file keeps what else is in it, and is for its owner alone.
    pub fn log_in(&self, registry: &str, user: &str, password: &str) -> Result<()> {
        if user.contains(':') {
            return Err(Error::Refused {
                what: format!("user {user:?}"),
                why: "a user name has no colon".to_owned(),
            });
        }
        let mut file = self.read()?;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let login = Login { auth: Some(auth), ..Login::default() };
        file.auths.insert(names(registry).swap_remove(0), login);
        self.write(&file)
    }

    /// Forgets a login; whether there was one.
    pub fn log_out(&self, registry: &str) -> Result<bool> {
        let mut file = self.read()?;
        let before = file.auths.len();
        for name in names(registry) {
            file.auths.remove(&name);
        }
        let removed = file.auths.len() < before;
        if removed { self.write(&file).map(|()| true) } else { Ok(false) }
    }

    fn read(&self) -> Result<File> {
        let bytes = match std::fs::read(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(File::default()),
            bytes => bytes.on_file("read", &self.path)?,
        };
        serde_json::from_slice(&bytes).map_err(|e| Error::malformed(self.path.display().to_string(), e))
    }

    fn write(&self, file: &File) -> Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).on_file("make folder", folder)?;
        let bytes = serde_json::to_vec_pretty(file).map_err(|e| Error::malformed("credentials", e))?;
        // A temporary file has mode 0600.
        let mut new = tempfile::NamedTempFile::new_in(folder).on_file("make a file in", folder)?;
        new.write_all(&bytes).on_file("write", new.path())?;
        new.as_file().sync_all().on_file("sync", new.path())?;
        new.persist(&self.path).map_err(|e| e.error).on_file("write", &self.path).map(drop)
    }
}

/// The names under which the file may have a registry, the usual one first.
fn names(registry: &str) -> Vec<String> {
    if ["docker.io", "index.docker.io", "registry-1.docker.io"].contains(&registry) {
        return [DOCKER_HUB, "docker.io", "index.docker.io"].map(str::to_owned).into();
    }
    let forms = ["", "https://", "http://"].map(|scheme| format!("{scheme}{registry}"));
    forms.into_iter().flat_map(|form| [form.clone(), form + "/"]).collect()
}

/// Asks a helper; `None` when it knows nothing of this registry.
fn ask(helper: &str, names: &[String]) -> Result<Option<RegistryAuth>> {
    let program = format!("docker-credential-{helper}");
    let failed = |why: String| Error::Program { program: program.clone(), why };
    if helper.contains('/') {
        return Err(failed("a helper's name has no slash".to_owned()));
    }
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that reads nothing and fails says so by its status.
        let _ = stdin.write_all(names.first().map_or("", String::as_str).as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() {
        let unknown = said.contains("credentials not found");
        let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return if unknown { Ok(None) } else { Err(failed(format!("{}: {said} {errors}", output.status))) };
    }
    let answer: Answer =
        serde_json::from_str(&said).map_err(|e| failed(format!("its answer is no JSON: {e}")))?;
    if answer.username == "<token>" {
        return Err(failed("it gives an identity token, which is not supported".to_owned()));
    }
    Ok(Some(RegistryAuth::Basic(answer.username, answer.secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(text: &str) -> (tempfile::TempDir, Credentials) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker/config.json");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        let credentials = Credentials::new(&path);
        (folder, credentials)
    }

    fn basic(user: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic(user.to_owned(), password.to_owned())
    }

    #[test]
    fn logins_are_found_under_all_of_dockers_spellings() {
        let (_folder, file) = credentials(
            r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dXNlcjpwYXNz"}, "https://r.example/": {"auth": "YTpiOmM="},
                "t.example": {"registrytoken": "T"}, "empty.example": {}}, "psFormat": "x"}"#,
        );
        assert_eq!(file.find("docker.io").unwrap(), basic("user", "pass"));
        assert_eq!(file.find("r.example").unwrap(), basic("a", "b:c"));
        assert_eq!(file.find("t.example").unwrap(), RegistryAuth::Bearer("T".into()));
        assert_eq!(file.find("empty.example").unwrap(), RegistryAuth::Anonymous);
        assert_eq!(file.find("other.example").unwrap(), RegistryAuth::Anonymous);
    }

    #[test]
    fn login_and_logout_keep_the_rest_of_the_file() {
        let (_folder, file) =
            credentials(r#"{"psFormat": "x", "auths": {"a.example": {"email": "e", "auth": "YTpi"}}}"#);
        file.log_in("b.example", "me", "s:t").unwrap();
        assert_eq!(file.find("b.example").unwrap(), basic("me", "s:t"));
        assert!(file.log_out("b.example").unwrap());
        assert!(!file.log_out("b.example").unwrap());
        assert_eq!(file.find("b.example").unwrap(), RegistryAuth::Anonymous);
        let text = std::fs::read_to_string(&file.path).unwrap();
        assert!(text.contains("psFormat") && text.contains("email"), "{text}");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn broken_files_and_helpers_that_are_not_there_are_said() {
        let (_folder, file) = credentials(
            r#"{"auths": {"a": {"auth": "%"}}, "credHelpers": {"b": "croft-none", "c": "../x"}}"#,
        );
        assert!(file.find("a").unwrap_err().to_string().contains("log in again"));
        assert!(file.find("b").unwrap_err().to_string().contains("docker-credential-croft-none"));
        assert!(file.find("c").unwrap_err().to_string().contains("no slash"));
        assert!(credentials("{").1.find("a").is_err());
    }
}
