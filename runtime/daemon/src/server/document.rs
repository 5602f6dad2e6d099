//! What says what can be asked: an OpenAPI document, made from the handlers.

use axum::http::header;
use axum::response::IntoResponse;
use croft_api::container::LogLine;
use croft_api::event::Event;
use croft_api::image::Progress;
use croft_api::problem::Problem;
use croft_api::stats::Stats;
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;

use super::{PROBLEM, parts};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "croftd",
        description = "Containers from images, supervised.",
        license(name = "Apache-2.0")
    ),
    components(schemas(Problem, LogLine, Event, Progress, Stats))
)]
struct Document;

/// What every request may get, beside what its handler says of its own.
const REFUSALS: [(&str, &str); 2] = [
    ("4XX", "It is not done: the request is wrong, or what it is about does not allow it."),
    ("5XX", "It is not done: croftd failed, or somebody whom it asked."),
];

/// The OpenAPI document, as JSON.
pub fn document() -> String {
    let described = OpenApiRouter::with_openapi(Document::openapi());
    let (_, mut document) = described.nest(&format!("/{}", croft_api::VERSION), parts()).split_for_parts();
    let paths = std::mem::take(&mut document.paths.paths);
    for (path, mut item) in paths {
        // OpenAPI has no word for a parameter with slashes in it.
        let path = path.replace("{*", "{");
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        operations.into_iter().flatten().for_each(|operation| complete(&path, operation));
        document.paths.paths.insert(path, item);
    }
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Gives the document to whoever asks.
pub async fn serve() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document())
}

/// Adds what is so with every operation. Handlers of several subjects have one name; ids are for all of them together.
fn complete(path: &str, operation: &mut Operation) {
    let subject = path.split('/').nth(2).unwrap_or_default();
    operation.tags = Some(vec![subject.to_owned()]);
    if let Some(id) = operation.operation_id.as_mut().filter(|id| *id != subject) {
        *id = format!("{subject}_{id}");
    }
    let answers = &mut operation.responses.responses;
    for answer in answers.values_mut() {
        let RefOr::T(Response { content, .. }) = answer else { continue };
        let kinds = std::mem::take(content).into_iter();
        *content =
            kinds.map(|(kind, of)| (if is_problem(&of) { PROBLEM.to_owned() } else { kind }, of)).collect();
    }
    for (statuses, words) in REFUSALS {
        let problem = Content::new(Some(Ref::from_schema_name("Problem")));
        answers.insert(
            statuses.to_owned(),
            ResponseBuilder::new().description(words).content(PROBLEM, problem).into(),
        );
    }
}

fn is_problem(content: &RefOr<Content>) -> bool {
    let problem = Ref::from_schema_name("Problem");
    matches!(content, RefOr::T(Content { schema: Some(RefOr::Ref(to)), .. }) if *to == problem)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    /// `BLESS=1 cargo test -p croftd openapi` writes it anew.
    #[test]
    fn the_openapi_document_is_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        let document = super::document();
        assert!(document.contains("/v1/containers/{name}/start"), "the paths are in it");
        croft_harness::fresh::check(&path, &document, "-p croftd openapi");
    }

    #[test]
    fn each_operation_has_an_id_of_its_own_and_says_how_it_refuses() {
        let document: Value = serde_json::from_str(&super::document()).unwrap();
        let mut ids = BTreeSet::new();
        for (path, method, operation) in operations(&document) {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "two operations are called {id}");
            for status in ["4XX", "5XX"] {
                let content = &operation["responses"][status]["content"];
                assert!(content["application/problem+json"].is_object(), "{method} {path}: {status}");
            }
        }
        assert!(ids.contains("containers_list") && ids.contains("events"), "{ids:?}");
    }

    #[test]
    fn parameters_of_the_path_are_those_in_it() {
        let document: Value = serde_json::from_str(&super::document()).unwrap();
        for (path, method, operation) in operations(&document) {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let said: BTreeSet<&str> =
                parameters.filter(|p| p["in"] == "path").filter_map(|p| p["name"].as_str()).collect();
            let parts = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            assert_eq!(said, parts.collect(), "{method} {path}");
        }
    }

    /// Path, method, operation.
    fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
        let paths = document["paths"].as_object().into_iter().flatten();
        paths.flat_map(|(path, item)| {
            let all = item.as_object().into_iter().flatten();
            all.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
    }
}
