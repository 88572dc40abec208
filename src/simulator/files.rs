//! Serves the files of the clips. Nothing is stored: sound and picture follow from the clip's id, so
//! that they are there again after a restart.

use actix_web::http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_RANGE, RANGE,
};
use actix_web::{HttpRequest, HttpResponse, web};
use uuid::Uuid;

use super::stats::Stats;
use super::world::World;
use super::{film, picture, sound};

/// `<clip id>.wav`, `<clip id>.png`, `<clip id>.mp4`, or only the id, which is the stream.
pub(super) async fn file(
    request: HttpRequest,
    world: web::Data<World>,
    name: web::Path<String>,
) -> HttpResponse {
    Stats::add(&world.stats.files);
    let (id, kind) = name.rsplit_once('.').unwrap_or((&name, ""));
    let (make, content_type): (fn(Uuid) -> Vec<u8>, _) = match kind {
        "" | "wav" => (sound::wav, "audio/wav"),
        "png" => (picture::png, "image/png"),
        "mp4" => (film::mp4, "video/mp4"),
        _ => return missing(),
    };
    let Ok(clip) = Uuid::try_parse(id) else {
        return missing();
    };
    match web::block(move || make(clip)).await {
        Ok(bytes) => ranged(&request, bytes.into(), content_type),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

fn missing() -> HttpResponse {
    HttpResponse::NotFound().body("There is no such file.")
}

/// The file, or the part of it that was asked for (RFC 9110, section 14).
fn ranged(request: &HttpRequest, file: web::Bytes, content_type: &str) -> HttpResponse {
    let asked = request.headers().get(RANGE).and_then(|range| range.to_str().ok());
    let (mut answer, part) = match asked.map_or(Range::Whole, |range| read_range(range, file.len())) {
        Range::Whole => (HttpResponse::Ok(), file),
        Range::Part(first, last) => {
            let mut answer = HttpResponse::PartialContent();
            answer.insert_header((CONTENT_RANGE, format!("bytes {first}-{last}/{}", file.len())));
            (answer, file.slice(first..=last))
        }
        Range::Outside => {
            let length = format!("bytes */{}", file.len());
            return HttpResponse::RangeNotSatisfiable().insert_header((CONTENT_RANGE, length)).finish();
        }
    };
    answer
        .content_type(content_type)
        .insert_header((ACCEPT_RANGES, "bytes"))
        .insert_header((CACHE_CONTROL, "public, max-age=86400, immutable"))
        .insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .body(part)
}

#[derive(Debug, PartialEq)]
enum Range {
    Whole,
    /// First and last byte.
    Part(usize, usize),
    Outside,
}

/// Several ranges at once and other units are answered with the whole file, as the RFC allows.
fn read_range(text: &str, length: usize) -> Range {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Range::Whole;
    };
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), _) if first >= length => Range::Outside,
        (Ok(first), Ok(last)) if first <= last => Range::Part(first, last.min(length - 1)),
        (Ok(first), Err(_)) if last.is_empty() => Range::Part(first, length - 1),
        (Err(_), Ok(0)) if first.is_empty() => Range::Outside,
        (Err(_), Ok(tail)) if first.is_empty() => Range::Part(length.saturating_sub(tail), length - 1),
        _ => Range::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_the_rfc_says() {
        for (text, range) in [
            ("bytes=0-9", Range::Part(0, 9)),
            ("bytes=90-200", Range::Part(90, 99)),
            ("bytes=90-", Range::Part(90, 99)),
            ("bytes=-10", Range::Part(90, 99)),
            ("bytes=-200", Range::Part(0, 99)),
            ("bytes=100-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=9-5", Range::Whole),
            ("bytes=0-1,4-5", Range::Whole),
            ("lines=1-2", Range::Whole),
        ] {
            assert_eq!(read_range(text, 100), range, "{text}");
        }
    }
}
