//! Who is asking: the bearer token of a request, as an argument that handlers take (SEC-1), and whether they ask far too
//! often (`flood`).

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};

use super::Api;
use super::problem::{Kind, Problem};
use crate::auth::{self, AuthError, Identity};

/// A request whose token was checked, and which the outer dam let pass where it is to change anything.
#[derive(Clone, Debug)]
pub struct Who(pub Identity);

impl FromRequest for Who {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = auth::bearer(header).map(str::to_owned);
        let only_reads = request.method().is_safe();
        let api = request.app_data::<web::Data<Api>>().cloned();
        Box::pin(async move {
            let api = api.ok_or_else(|| Problem::new(Kind::Internal, "not set up"))?;
            let token = token.map_err(refused)?;
            let now = api.clock().now();
            let identity = api.auth.verify(&token, now).await.map_err(refused)?;
            tracing::Span::current().record("user.id", identity.user.as_str());
            if !only_reads {
                api.creation.outer_dam(&identity, now)?;
            }
            Ok(Who(identity))
        })
    }
}

/// The same for what creates songs: past the inner dam, too.
#[derive(Clone, Debug)]
pub struct Creator(pub Who);

impl FromRequest for Creator {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let who = Who::from_request(request, payload);
        let api = request.app_data::<web::Data<Api>>().cloned();
        Box::pin(async move {
            let who = who.await?;
            let api = api.ok_or_else(|| Problem::new(Kind::Internal, "not set up"))?;
            api.creation.dam(&who.0, api.clock().now())?;
            Ok(Self(who))
        })
    }
}

fn refused(error: AuthError) -> Problem {
    match error {
        AuthError::KeysUnavailable => Problem::unavailable(),
        AuthError::Missing => {
            Problem::new(Kind::Unauthorized, "Send a token: Authorization: Bearer <token>.")
        }
        AuthError::Expired => Problem::new(Kind::Unauthorized, "The token has expired; get a fresh one."),
        AuthError::Revoked => {
            Problem::new(Kind::Unauthorized, "The token was revoked; sign in again for another.")
        }
        AuthError::Banned => Problem::new(Kind::Forbidden, "This account may not be used any more."),
        AuthError::Malformed
        | AuthError::BadSignature
        | AuthError::NotYet
        | AuthError::WrongAudience
        | AuthError::WrongIssuer => Problem::new(Kind::Unauthorized, "The token is not valid here."),
    }
}
