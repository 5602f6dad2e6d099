//! `cp`, `diff`, `commit` and `export`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use croft_api::client::{Client, Error};
use croft_api::files::{Change, Commit, FileKind, Stat};
use croft_api::image::Image;
use croft_api::pieces::Reader;
use croft_api::problem::Kind;
use http::Method;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::archive;
use super::{Failed, part};
use crate::args::{CommitArgs, CpArgs, ExportArgs, Format};
use crate::output::{self, Shown};

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// The standard input or output.
    Stream,
    /// A path of this host.
    Here(PathBuf),
    /// A path in a container.
    There(String, String),
}

/// As with Docker: what has a colon before any slash is in a container.
fn place(text: &str) -> Place {
    match text.split_once(':') {
        _ if text == "-" => Place::Stream,
        Some((name, path)) if !name.is_empty() && !name.starts_with(['.', '/']) && !name.contains('/') => {
            Place::There(name.to_owned(), path.to_owned())
        }
        _ => Place::Here(PathBuf::from(text)),
    }
}

/// `cp`.
///
/// # Errors
/// When something is not there, or cannot be copied.
pub async fn copy(client: &Client, args: &CpArgs) -> Result<u8, Failed> {
    match (place(&args.source), place(&args.target)) {
        (Place::There(name, path), Place::Stream) => {
            archive::no_terminal("an archive")?;
            let from = client.download(&at(&name, "archive", &path, args.follow_link)).await?;
            archive::receive(from, |mut from| archive::copy_out(&mut from)).await?;
        }
        (Place::There(name, path), Place::Here(target)) => out(client, &name, &path, &target, args).await?,
        (Place::Stream, Place::There(name, path)) => {
            let path = at(&name, "archive", &path, true);
            let work =
                |to: &mut io::BufWriter<archive::Sender>| io::copy(&mut io::stdin().lock(), to).map(drop);
            archive::send::<()>(client, Method::PUT, &path, work).await?;
        }
        (Place::Here(source), Place::There(name, path)) => into(client, &source, &name, &path, args).await?,
        (Place::There(..), Place::There(..)) => {
            return Err(Failed::from("cp: one side is on this host, or -".to_owned()));
        }
        _ => return Err(Failed::from("cp: one side is in a container: CONTAINER:PATH".to_owned())),
    }
    if !args.quiet && place(&args.target) != Place::Stream {
        eprintln!("copied {} to {}", args.source, args.target);
    }
    Ok(0)
}

fn at(name: &str, what: &str, path: &str, follow: bool) -> String {
    format!("/containers/{}/{what}?path={}&follow={follow}", part(name), part(path))
}

/// Whether what a folder has is meant, and not the folder.
fn is_content(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

/// From a container to this host.
async fn out(client: &Client, name: &str, path: &str, target: &Path, args: &CpArgs) -> Result<(), Failed> {
    let wants_folder = target.to_string_lossy().ends_with('/');
    let (content, keep) = (is_content(path), args.archive);
    let (target, is_folder) = (target.to_owned(), target.is_dir());
    if wants_folder && !is_folder {
        return Err(Failed::from(format!("{}: no such folder", target.display())));
    }
    let from = client.download(&at(name, "archive", path, args.follow_link)).await?;
    archive::receive(from, move |from| {
        // Its folder is there, or what is copied becomes it.
        let (folder, new_name) = match (is_folder, content) {
            (true, true) => (target.clone(), Some(PathBuf::new())),
            (true, false) => (target.clone(), None),
            (false, _) => {
                let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
                let last = target.file_name().map(PathBuf::from).unwrap_or_default();
                (parent.unwrap_or(Path::new(".")).to_owned(), Some(last))
            }
        };
        if !folder.is_dir() {
            return Err(Failed::from(format!("{}: no such folder", folder.display())));
        }
        unpack(from, &folder, new_name.as_deref(), keep, &target)
            .map_err(|e| Failed::from(format!("copy to {}: {}", target.display(), chain(&e))))
    })
    .await
}

/// An error of the tar crate with its causes.
fn chain(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.get_ref().and_then(|inner| inner.source());
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// Unpacks below `folder`; with `new_name`, the first part of every name becomes that.
fn unpack(from: Reader, folder: &Path, new_name: Option<&Path>, keep: bool, target: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(from);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(keep);
    archive.set_overwrite(true);
    let rename = |path: &Path| match new_name {
        None => path.to_owned(),
        Some(new) => new.join(
            path.components()
                .filter(|part| matches!(part, Component::Normal(_)))
                .skip(1)
                .collect::<PathBuf>(),
        ),
    };
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let path = rename(&entry.path()?);
        if kind.is_dir() && target.is_file() {
            return Err(io::Error::other("it is a file, and a folder is copied"));
        }
        if path.as_os_str().is_empty() {
            continue;
        }
        // Its target is a name of the archive too.
        let place = safe(folder, &path)?;
        match entry.link_name()? {
            Some(link) if kind.is_hard_link() => {
                let linked = safe(folder, &rename(&link))?;
                let _ = fs::remove_file(&place);
                fs::hard_link(linked, &place)?;
            }
            // The tar crate makes an empty file of each of these.
            _ if kind.is_fifo() => {
                let _ = fs::remove_file(&place);
                let mode = Mode::from_raw_mode(entry.header().mode()?);
                mknodat(CWD, &place, FileType::Fifo, mode, 0)?;
                fs::set_permissions(&place, fs::Permissions::from_mode(mode.as_raw_mode()))?;
            }
            _ if kind.is_character_special() || kind.is_block_special() => {
                eprintln!("croft: left out {}: a device", path.display());
            }
            _ => {
                entry.unpack(&place)?;
            }
        }
    }
    Ok(())
}

/// Where `path` is below `folder`: no part of the way is a link, whatever the archive has made before.
fn safe(folder: &Path, path: &Path) -> io::Result<PathBuf> {
    let refuse = |why: &str| io::Error::other(format!("{}: {why}", path.display()));
    let mut place = folder.to_owned();
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::CurDir => continue,
            _ => return Err(refuse("a name that leads elsewhere")),
        }
        if parts.peek().is_some() && !fs::symlink_metadata(&place).is_ok_and(|data| data.is_dir()) {
            return Err(refuse("its folder is none"));
        }
    }
    Ok(place)
}

/// From this host into a container.
async fn into(client: &Client, source: &Path, name: &str, path: &str, args: &CpArgs) -> Result<(), Failed> {
    let failed = |e: io::Error| Failed::from(format!("{}: {e}", source.display()));
    let text = source.to_string_lossy();
    let follow = args.follow_link || text.ends_with('/');
    let data = if follow { fs::metadata(source) } else { fs::symlink_metadata(source) }.map_err(failed)?;
    let there: Option<Stat> = match client.get(&at(name, "stat", path, true)).await {
        Ok(stat) => Some(stat),
        // A container that is not there is found out below.
        Err(Error::Refused(problem))
            if problem.kind == Kind::NotFound && problem.title.starts_with("look at") =>
        {
            None
        }
        Err(other) => return Err(other.into()),
    };
    let is_folder = there.as_ref().is_some_and(|stat| stat.kind == FileKind::Folder);
    let inside = Path::new(path);
    if there.is_some() && !is_folder && data.is_dir() {
        return Err(Failed::from(format!("copy to {name}:{path}: it is a file, and a folder is copied")));
    }
    if there.is_none() && path.ends_with('/') && !data.is_dir() {
        return Err(Failed::from(format!("copy to {name}:{path}: no such folder in the container")));
    }
    // Into a folder that is there, under its own name; else as what the path says.
    let (folder, new_name) = match (is_folder, is_content(&text)) {
        (true, true) => (path.to_owned(), PathBuf::new()),
        (true, false) => {
            let own = fs::canonicalize(source).ok().filter(|_| source.file_name().is_none());
            let own = own.as_deref().unwrap_or(source).file_name().map(PathBuf::from);
            (path.to_owned(), own.unwrap_or_default())
        }
        (false, _) => {
            let parent = inside.parent().map(|parent| parent.to_string_lossy().into_owned());
            let last = inside.file_name().map(PathBuf::from).unwrap_or_default();
            (parent.filter(|parent| !parent.is_empty()).unwrap_or_else(|| "/".to_owned()), last)
        }
    };
    let (source, keep) = (source.to_owned(), args.archive);
    let work = move |to: &mut io::BufWriter<archive::Sender>| {
        let mut archive = tar::Builder::new(to);
        add(&mut archive, &source, &new_name, keep, follow)?;
        archive.into_inner().map(drop)
    };
    archive::send::<()>(client, Method::PUT, &at(name, "archive", &folder, true), work).await
}

/// Adds `source` with all below it under the name `name`; empty: only what is in it.
fn add<W: Write>(
    archive: &mut tar::Builder<W>,
    source: &Path,
    name: &Path,
    keep: bool,
    follow: bool,
) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", source.display()));
    let data = if follow { fs::metadata(source) } else { fs::symlink_metadata(source) }.map_err(named)?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&data);
    if !keep {
        header.set_uid(0);
        header.set_gid(0);
    }
    if data.is_dir() {
        if !name.as_os_str().is_empty() {
            archive.append_data(&mut header, name, io::empty())?;
        }
        let mut entries = fs::read_dir(source).map_err(named)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        return entries
            .iter()
            .try_for_each(|entry| add(archive, &entry.path(), &name.join(entry.file_name()), keep, false));
    }
    if data.is_symlink() {
        header.set_size(0);
        let target = fs::read_link(source).map_err(named)?;
        // As it is; the other function changes it (`a//b` to `a/b`), but has room for longer ones.
        return match header.set_link_name_literal(target.as_os_str().as_bytes()) {
            Ok(()) => archive.append_data(&mut header, name, io::empty()),
            Err(_) => archive.append_link(&mut header, name, target),
        };
    }
    if data.is_file() {
        let file = fs::File::open(source).map_err(named)?;
        // One that grows or shrinks meanwhile would break the archive.
        let size = data.len();
        let content = io::Read::take(io::Read::chain(io::Read::take(file, size), io::repeat(0)), size);
        return archive.append_data(&mut header, name, content);
    }
    if data.file_type().is_fifo() {
        header.set_size(0);
        return archive.append_data(&mut header, name, io::empty());
    }
    Err(io::Error::other(format!("{}: is no file, folder, link or FIFO", source.display())))
}

/// `diff`.
///
/// # Errors
/// When it is not there.
pub async fn diff(client: &Client, name: &str, shown: Shown) -> Result<u8, Failed> {
    let changes: Vec<Change> = client.get(&format!("/containers/{}/changes", part(name))).await?;
    match shown.format {
        _ if shown.quiet => changes.iter().for_each(|change| output::line(&change.path)),
        Format::Json => output::json(&changes),
        Format::Table => {
            changes.iter().for_each(|change| output::line(format_args!("{:?} {}", change.kind, change.path)))
        }
    }
    Ok(0)
}

/// `commit`.
///
/// # Errors
/// When it is not there, or the image cannot be made.
pub async fn commit(client: &Client, args: &CommitArgs, shown: Shown) -> Result<u8, Failed> {
    let asked = Commit {
        image: args.image.clone(),
        changes: args.change.clone(),
        message: args.message.clone(),
        author: args.author.clone(),
        pause: args.pause,
    };
    let image: Image = client.post(&format!("/containers/{}/commit", part(&args.container)), &asked).await?;
    super::images::made(&image, shown);
    Ok(0)
}

/// `export`.
///
/// # Errors
/// When it is not there, or cannot be written.
pub async fn export(client: &Client, args: &ExportArgs) -> Result<u8, Failed> {
    if args.output.is_none() {
        archive::no_terminal("an archive")?;
    }
    let from = client.download(&format!("/containers/{}/export", part(&args.container))).await?;
    archive::save(from, args.output.as_deref()).await?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_before_any_slash_means_a_container() {
        let there = |name: &str, path: &str| Place::There(name.into(), path.into());
        assert_eq!(place("web:/etc"), there("web", "/etc"));
        assert_eq!(place("web:"), there("web", ""));
        assert_eq!(place("-"), Place::Stream);
        for here in ["/a:b", "./a:b", "../a:b", "a/b:c", "a", ":a"] {
            assert_eq!(place(here), Place::Here(here.into()), "{here}");
        }
    }

    #[test]
    fn no_name_of_an_archive_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("link")).unwrap();
        assert!(safe(folder.path(), Path::new("sub/file")).is_ok());
        for path in ["../x", "/etc/x", "link/x", "none/x"] {
            assert!(safe(folder.path(), Path::new(path)).is_err(), "{path}");
        }
    }
}
