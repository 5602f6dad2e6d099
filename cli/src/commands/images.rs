//! `image`.

use croft_api::client::Client;
use croft_api::image::{Image, Import, Progress, Pull};
use http::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;

use super::{Failed, part};
use crate::args::{Format, ImageCommand};
use crate::output;

/// Does what is asked.
///
/// # Errors
/// When it cannot be done.
pub async fn run(client: &Client, command: &ImageCommand, format: Format) -> Result<u8, Failed> {
    match command {
        ImageCommand::Pull { image, platform } => {
            println!("{}", pull(client, image, platform.as_deref()).await?.id);
        }
        ImageCommand::Ls { quiet } => list(client, *quiet, format).await?,
        ImageCommand::Import { path, name } => {
            let path = std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let import = Import { path: path.to_string_lossy().into_owned(), name: name.clone() };
            println!("{}", client.post::<_, Image>("/images/import", &import).await?.id);
        }
        ImageCommand::Rm { names } => {
            for name in names {
                client.delete(&format!("/images/{}", part(name))).await?;
                println!("{name}");
            }
        }
    }
    Ok(0)
}

/// Gets an image from a registry, with a bar for each layer where somebody looks.
///
/// # Errors
/// When the registry does not give it.
pub async fn pull(client: &Client, image: &str, platform: Option<&str>) -> Result<Image, Failed> {
    let asked = Pull { image: image.to_owned(), platform: platform.map(str::to_owned) };
    let mut lines = client.lines(Method::POST, "/images/pull", Some(&asked)).await?;
    let shown = MultiProgress::new();
    let style = ProgressStyle::with_template("{prefix} {bar:30} {bytes}/{total_bytes}").ok();
    let mut bars: HashMap<String, ProgressBar> = HashMap::new();
    while let Some(progress) = lines.next::<Progress>().await? {
        match progress {
            Progress::Layer { digest, done, total } => {
                let bar = bars.entry(digest.clone()).or_insert_with(|| {
                    let bar = shown.add(ProgressBar::new(total)).with_prefix(output::short(&digest));
                    style.clone().into_iter().for_each(|style| bar.set_style(style));
                    bar
                });
                bar.set_position(done);
            }
            Progress::Done { image } => {
                let _ = shown.clear();
                return Ok(image);
            }
            Progress::Failed { problem } => {
                let _ = shown.clear();
                return Err(croft_api::client::Error::Refused(problem).into());
            }
        }
    }
    Err(Failed::from(format!("pull {image}: croftd ended before it was there")))
}

async fn list(client: &Client, quiet: bool, format: Format) -> Result<(), Failed> {
    let images: Vec<Image> = client.get("/images").await?;
    if quiet {
        images.iter().for_each(|image| println!("{}", image.id));
        return Ok(());
    }
    output::list(format, &images, &["NAME", "IMAGE ID", "LAYERS", "SIZE"], |image| {
        vec![
            image.names.join(" "),
            output::short(&image.id),
            image.layers.to_string(),
            output::size(image.size),
        ]
    });
    Ok(())
}
