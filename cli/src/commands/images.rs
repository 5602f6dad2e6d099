//! `image`, `login` and `logout`.

use std::io::{self, IsTerminal, Write};

use croft_api::client::{Client, Error};
use croft_api::image::{
    BuildRootfs, Details, Image, Import, Login, Logout, PrunedImages, Pull, Push, Step, Tag,
};
use http::Method;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::progress::{self, Show};
use super::{Failed, archive, part, report};
use crate::args::{
    Format, ImageCommand, LoadArgs, LoginArgs, LogoutArgs, PullArgs, RmiArgs, SaveArgs, TagArgs, TransferArgs,
};
use crate::output::{self, Shown};

/// Does what is asked.
///
/// # Errors
/// When it cannot be done.
pub async fn run(client: &Client, command: &ImageCommand, shown: Shown) -> Result<u8, Failed> {
    let format = shown.format;
    match command {
        ImageCommand::Pull(args) => return get(client, args, format).await,
        ImageCommand::Push(args) => return push(client, args, format).await,
        ImageCommand::Ls(args) => return list(client, args.quiet, format).await,
        ImageCommand::Inspect { names } => {
            let mut all: Vec<Details> = Vec::new();
            for name in names {
                all.push(client.get(&format!("/images/inspect?image={}", part(name))).await?);
            }
            output::json(&all);
        }
        ImageCommand::History { no_trunc, image } => history(client, image, *no_trunc, shown).await?,
        ImageCommand::Tag(args) => return tag(client, args).await,
        ImageCommand::Import { path, name } => {
            let path = std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let import = Import { path: path.to_string_lossy().into_owned(), name: name.clone() };
            made(&client.post("/images/import", &import).await?, shown);
        }
        ImageCommand::Export(args) => return save(client, args).await,
        ImageCommand::Load(args) => return load(client, args, format).await,
        ImageCommand::BuildRootfs { variant, include, mirror, suite, name } => {
            let asked = BuildRootfs {
                name: name.clone(),
                suite: suite.clone(),
                variant: variant.clone(),
                packages: include.clone(),
                mirrors: mirror.clone(),
            };
            let work = client.post::<_, Image>("/images/build-rootfs", &asked);
            made(&progress::wait(&format!("making {name} with mmdebstrap"), work).await?, shown);
        }
        ImageCommand::Rm(args) => return remove(client, args, shown).await,
        ImageCommand::Prune { all, force } => prune(client, *all, *force, shown).await?,
    }
    Ok(0)
}

/// Prints the image that was made.
pub fn made(image: &Image, shown: Shown) {
    shown.done(image, &image.id);
}

/// Prints the image that was transferred: `--quiet` leaves out the progress alone.
fn transferred(image: &Image, format: Format) {
    made(image, Shown { format, quiet: false });
}

/// `pull`.
///
/// # Errors
/// When the registry does not give it.
pub async fn get(client: &Client, args: &PullArgs, format: Format) -> Result<u8, Failed> {
    let TransferArgs { quiet, image } = &args.transfer;
    let asked = Pull { image: image.clone(), platform: args.platform.clone() };
    let title = format!("pull {image}");
    let pulled = progress::follow(client, "/images/pull", &asked, &title, Show::of(*quiet)).await?;
    transferred(&pulled, format);
    Ok(0)
}

/// Gets an image that a container is to be made from.
///
/// # Errors
/// When the registry does not give it.
pub async fn pull(
    client: &Client,
    image: &str,
    platform: Option<&str>,
    quiet: bool,
) -> Result<Image, Failed> {
    let asked = Pull { image: image.to_owned(), platform: platform.map(str::to_owned) };
    progress::follow(client, "/images/pull", &asked, &format!("pull {image}"), Show::of(quiet)).await
}

/// `push`.
///
/// # Errors
/// When there is no such image, or the registry does not take it.
pub async fn push(client: &Client, args: &TransferArgs, format: Format) -> Result<u8, Failed> {
    let asked = Push { image: args.image.clone() };
    let title = format!("push {}", args.image);
    let pushed = progress::follow(client, "/images/push", &asked, &title, Show::of(args.quiet)).await?;
    transferred(&pushed, format);
    Ok(0)
}

/// `images`.
///
/// # Errors
/// When croftd does not answer.
pub async fn list(client: &Client, quiet: bool, format: Format) -> Result<u8, Failed> {
    let images: Vec<Image> = client.get("/images").await?;
    if quiet {
        images.iter().for_each(|image| output::line(&image.id));
        return Ok(0);
    }
    output::list(format, &images, &["NAME", "IMAGE ID", "CREATED", "LAYERS", "SIZE"], |image| {
        vec![
            image.names.join(" "),
            output::short(&image.id),
            image.created.as_deref().unwrap_or_default().chars().take(19).collect(),
            image.layers.to_string(),
            output::size(image.size),
        ]
    });
    Ok(0)
}

async fn history(client: &Client, image: &str, no_trunc: bool, shown: Shown) -> Result<(), Failed> {
    let steps: Vec<Step> = client.get(&format!("/images/history?image={}", part(image))).await?;
    if shown.quiet {
        steps.iter().filter_map(|step| step.layer.as_deref()).for_each(crate::output::line);
        return Ok(());
    }
    output::list(shown.format, &steps, &["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"], |step| {
        let layer = step.layer.as_deref().unwrap_or("-");
        let by: String =
            step.created_by.clone().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        vec![
            if no_trunc { layer.to_owned() } else { output::short(layer) },
            step.created.as_deref().unwrap_or_default().chars().take(19).collect(),
            if no_trunc { by } else { by.chars().take(45).collect() },
            output::size(step.size),
            step.comment.clone().unwrap_or_default(),
        ]
    });
    Ok(())
}

/// `tag`.
///
/// # Errors
/// When there is no such image, or the name is none.
pub async fn tag(client: &Client, args: &TagArgs) -> Result<u8, Failed> {
    let asked = Tag { image: args.image.clone(), name: args.name.clone() };
    client.post::<_, ()>("/images/tag", &asked).await?;
    Ok(0)
}

/// `save`.
///
/// # Errors
/// When one is not there, or cannot be written.
pub async fn save(client: &Client, args: &SaveArgs) -> Result<u8, Failed> {
    if args.output.is_none() {
        archive::no_terminal("an archive")?;
    }
    let from = client.download(&format!("/images/export?images={}", part(&args.images.join(",")))).await?;
    archive::save(from, args.output.as_deref()).await?;
    Ok(0)
}

/// `load`.
///
/// # Errors
/// When it is no archive of images.
pub async fn load(client: &Client, args: &LoadArgs, format: Format) -> Result<u8, Failed> {
    let input = match &args.input {
        Some(path) => Some(std::fs::File::open(path).map_err(|e| format!("{}: {e}", path.display()))?),
        None if io::stdin().is_terminal() => {
            return Err(Failed::from(
                "an archive does not come from a terminal: --input FILE, or a pipe".to_owned(),
            ));
        }
        None => None,
    };
    let work = |to: &mut io::BufWriter<archive::Sender>| match input {
        Some(mut file) => io::copy(&mut file, to).map(drop),
        None => io::copy(&mut io::stdin().lock(), to).map(drop),
    };
    let images: Vec<Image> = archive::send(client, Method::POST, "/images/load", work).await?;
    match format {
        Format::Json => output::json(&images),
        Format::Table if args.quiet => images.iter().for_each(|image| output::line(&image.id)),
        Format::Table => images
            .iter()
            .for_each(|image| output::line(format_args!("{} {}", image.names.join(" "), image.id))),
    }
    Ok(0)
}

/// `rmi`.
///
/// # Errors
/// For the last that failed; the others are done.
pub async fn remove(client: &Client, args: &RmiArgs, shown: Shown) -> Result<u8, Failed> {
    let mut failed = None;
    for name in &args.names {
        report(client.delete(&format!("/images/{}", part(name))).await, name, shown, &mut failed);
    }
    failed.map_or(Ok(0), Err)
}

async fn prune(client: &Client, all: bool, force: bool, shown: Shown) -> Result<(), Failed> {
    let what = if all {
        "all images that no container is made from"
    } else {
        "what no image and no container needs"
    };
    if !force && !output::agreed(&format!("Remove {what}?"))? {
        return Ok(());
    }
    let pruned: PrunedImages = client.post(&format!("/images/prune?all={all}"), &()).await?;
    shown.lines(&pruned, pruned.names.iter().cloned().chain([output::freed(pruned.bytes)]));
    Ok(())
}

/// `login`.
///
/// # Errors
/// When the registry does not know the user.
pub async fn log_in(client: &Client, args: &LoginArgs) -> Result<u8, Failed> {
    let user = match &args.username {
        Some(user) => user.clone(),
        None if args.password_stdin => {
            return Err(Failed::from("--password-stdin needs --username".to_owned()));
        }
        None => asked("Username: ", Echo::On)?,
    };
    let password = match args.password_stdin {
        true => io::read_to_string(io::stdin()).map_err(|e| format!("read the password: {e}"))?,
        false => asked("Password: ", Echo::Off)?,
    };
    let password = password.trim_end_matches(['\r', '\n']).to_owned();
    if password.is_empty() {
        return Err(Failed::from("there is no password".to_owned()));
    }
    let login = Login { registry: args.registry.clone(), user, password };
    client.post::<_, ()>("/registries/login", &login).await?;
    eprintln!("logged in at {}", args.registry);
    Ok(0)
}

/// Whether what is typed is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Echo {
    On,
    Off,
}

fn asked(question: &str, echo: Echo) -> Result<String, Failed> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failed::from("nobody is there to be asked: --username and --password-stdin".to_owned()));
    }
    let failed = |e: io::Error| Failed::from(format!("ask at the terminal: {e}"));
    eprint!("{question}");
    let _ = io::stderr().flush();
    let before = tcgetattr(&stdin).map_err(|e| failed(e.into()))?;
    if echo == Echo::Off {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &silent).map_err(|e| failed(e.into()))?;
    }
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    if echo == Echo::Off {
        let _ = tcsetattr(&stdin, OptionalActions::Now, &before);
        eprintln!();
    }
    read.map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// `logout`.
///
/// # Errors
/// When nobody is logged in there.
pub async fn log_out(client: &Client, args: &LogoutArgs) -> Result<u8, Failed> {
    let asked = Logout { registry: args.registry.clone() };
    client.post::<_, ()>("/registries/logout", &asked).await.map_err(|e: Error| Failed::from(e))?;
    eprintln!("logged out of {}", args.registry);
    Ok(0)
}
