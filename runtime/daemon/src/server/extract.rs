//! What a request carries, taken out of it. What is not as it should be is refused as a problem, like everything else.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use croft_api::problem::{Kind, Problem};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};

use super::Refusal;

/// How long a client may take to send a body that croftd has to have as a whole.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// The parts of a path that have names.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        let axum::extract::Path(value) =
            read.map_err(|e| refusal(title(&parts.method, &parts.uri), e.status(), e.body_text()))?;
        Ok(Path(value))
    }
}

/// What stands behind the question mark.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let read = axum::extract::Query::from_request_parts(parts, state).await;
        let axum::extract::Query(value) =
            read.map_err(|e| refusal(title(&parts.method, &parts.uri), e.status(), e.body_text()))?;
        Ok(Query(value))
    }
}

/// A body in JSON.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let title = title(request.method(), request.uri());
        let read = tokio::time::timeout(BODY_LIMIT, Json::from_request(request, state)).await;
        let late = |_| {
            let why = format!("the body did not come within {} seconds", BODY_LIMIT.as_secs());
            refusal(title.clone(), StatusCode::REQUEST_TIMEOUT, why)
        };
        let read = read.map_err(late)?;
        let Json(Object(value)) = read.map_err(|e| refusal(title, e.status(), e.body_text()))?;
        Ok(Body(value))
    }
}

/// Fields with names. Without this a list of their values would be taken too, which the document does not offer.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_map(Fields(PhantomData)).map(Object)
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields))
    }
}

/// What was asked, in the words of the one who asks.
pub fn title(method: &Method, uri: &Uri) -> String {
    format!("{method} {}", uri.path())
}

/// What is wrong with the request itself.
pub fn refusal(title: String, status: StatusCode, why: impl Into<String>) -> Refusal {
    // The word for programs is the same for all of them. What is between reads the status.
    let status = match status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        status => status,
    };
    Refusal(Problem { status: status.as_u16(), ..Problem::new(Kind::Invalid, title, why) })
}
