//! Who is asking: the bearer token of a request, as an argument that handlers take (SEC-1).

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};

use super::Api;
use super::problem::{Kind, Problem};
use crate::auth::{self, AuthError, Identity};

/// A request whose token was checked.
#[derive(Clone, Debug)]
pub struct Who(pub Identity);

impl FromRequest for Who {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = auth::bearer(header).map(str::to_owned);
        let api = request.app_data::<web::Data<Api>>().cloned();
        Box::pin(async move {
            let api = api.ok_or_else(|| Problem::new(Kind::Internal, "not set up"))?;
            let token = token.map_err(refused)?;
            let identity = api.auth.verify(&token, api.clock().now()).await.map_err(refused)?;
            tracing::Span::current().record("user.id", identity.user.as_str());
            Ok(Who(identity))
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
