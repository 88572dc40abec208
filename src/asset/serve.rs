//! Answers requests for files, whole or in part, without ever holding one in memory, or open while its reader is slow.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use actix_web::body::SizedStream;
use actix_web::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, EntityTag, Header, HeaderName, IF_RANGE,
    IfNoneMatch, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use bytes::Bytes;
use futures_util::{Stream, stream};

use super::Assets;
use super::range::{self, Range};

const CHUNK_BYTES: usize = 64 << 10;
/// A name is never given twice, so what lies under it stays as it is; and it is nobody else's to keep.
const CACHE: &str = "private, max-age=31536000, immutable";

pub(super) async fn file(
    request: HttpRequest,
    assets: web::Data<Assets>,
    name: web::Path<String>,
) -> HttpResponse {
    let Some((path, media_type)) = assets.find(&name) else { return missing() };
    let looked_at = path.clone();
    match blocking(move || Ok(File::open(looked_at)?.metadata()?.len())).await {
        Ok(length) => answer(&request, path, length, &name, media_type),
        Err(error) if error.kind() == io::ErrorKind::NotFound => missing(),
        Err(error) => {
            tracing::error!(%error, "a file cannot be read");
            HttpResponse::ServiceUnavailable().finish()
        }
    }
}

fn missing() -> HttpResponse {
    HttpResponse::NotFound().insert_header((CACHE_CONTROL, "no-store")).body("There is no such file.")
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    web::block(act).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn answer(
    request: &HttpRequest,
    path: PathBuf,
    length: u64,
    name: &str,
    media_type: &'static str,
) -> HttpResponse {
    let tag = EntityTag::new_strong(name.to_owned());
    if is_known(request, &tag) {
        return described(HttpResponse::NotModified(), &tag, media_type).finish();
    }
    let (status, first, count) = match asked(request, &tag, length) {
        Range::Whole => (HttpResponse::Ok(), 0, length),
        Range::Part(first, last) => {
            let mut answer = HttpResponse::PartialContent();
            answer.insert_header((CONTENT_RANGE, format!("bytes {first}-{last}/{length}")));
            (answer, first, last - first + 1)
        }
        Range::Outside => {
            let all = format!("bytes */{length}");
            return HttpResponse::RangeNotSatisfiable().insert_header((CONTENT_RANGE, all)).finish();
        }
    };
    // To HEAD the same is answered, but for the body.
    described(status, &tag, media_type).body(SizedStream::new(count, Box::pin(part(path, first, count))))
}

fn described(
    mut answer: HttpResponseBuilder,
    tag: &EntityTag,
    media_type: &'static str,
) -> HttpResponseBuilder {
    let headers: [(HeaderName, &str); 4] = [
        (CONTENT_TYPE, media_type),
        (ACCEPT_RANGES, "bytes"),
        (CACHE_CONTROL, CACHE),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    headers.into_iter().for_each(|header| {
        answer.insert_header(header);
    });
    answer.insert_header((ETAG, tag.to_string()));
    answer
}

fn is_known(request: &HttpRequest, tag: &EntityTag) -> bool {
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => request.headers().contains_key("if-none-match"),
        Ok(IfNoneMatch::Items(known)) => known.iter().any(|known| known.weak_eq(tag)),
        Err(_) => false,
    }
}

/// Whoever has a part of another file gets the whole of this one (`If-Range`).
fn asked(request: &HttpRequest, tag: &EntityTag, length: u64) -> Range {
    let header = |name| {
        request
            .headers()
            .get(name)
            .map(|value: &actix_web::http::header::HeaderValue| value.to_str().unwrap_or_default())
    };
    match (header(RANGE), header(IF_RANGE)) {
        (Some(_), Some(held)) if held != tag.to_string() => Range::Whole,
        (Some(range), _) => range::read(range, length),
        (None, _) => Range::Whole,
    }
}

/// The next bytes of a file, a chunk at a time. It is opened for each: as many may be read at once as there are
/// connections, and each would be an open file more.
fn part(path: PathBuf, first: u64, count: u64) -> impl Stream<Item = io::Result<Bytes>> {
    let path: Arc<PathBuf> = path.into();
    stream::try_unfold((path, first, count), async |(path, at, left)| {
        if left == 0 {
            return Ok(None);
        }
        let place = Arc::clone(&path);
        let read = blocking(move || {
            let mut chunk = vec![0; usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)];
            File::open(&*place)?.read_exact_at(&mut chunk, at)?;
            Ok(Bytes::from(chunk))
        });
        let chunk = read.await?;
        let read = chunk.len() as u64;
        Ok(Some((chunk, (path, at + read, left - read))))
    })
}
