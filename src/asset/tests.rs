//! Files kept and served, over the routes as they are.

use actix_web::body::MessageBody as _;
use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, web};

use super::*;

/// A folder that goes with the test.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("songflight-assets-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn assets(&self) -> Assets {
        Assets::new(self.0.join("assets"), "https://songs.example.com/")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("assets")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Answer {
    status: StatusCode,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

async fn asked(assets: &Assets, request: TestRequest) -> Answer {
    let app = init_service(App::new().app_data(web::Data::new(assets.clone())).configure(routes)).await;
    let response = call_service(&app, request.to_request()).await;
    let text = |value: &actix_web::http::header::HeaderValue| value.to_str().unwrap().to_owned();
    Answer {
        status: response.status(),
        headers: response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: read_body(response).await.to_vec(),
    }
}

fn get(url: &str) -> TestRequest {
    TestRequest::get().uri(url.strip_prefix("https://songs.example.com").unwrap_or(url))
}

/// Longer than one chunk, and no two parts of it alike.
fn a_song() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

#[actix_web::test]
async fn what_is_kept_is_served_whole_with_its_type() {
    let home = Home::new("whole");
    let (assets, song) = (home.assets(), a_song());
    let url = assets.keep(&song, "audio/mpeg").unwrap();
    assert!(url.starts_with("https://songs.example.com/assets/") && url.ends_with(".mp3"), "{url}");
    assert_ne!(assets.keep(&song, "audio/mpeg").unwrap(), url, "no name is given twice");

    let answer = asked(&assets, get(&url)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body, song);
    assert_eq!(answer.header("content-type"), "audio/mpeg");
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert_eq!(answer.header("cache-control"), "private, max-age=31536000, immutable");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");

    let again = get(&url).insert_header(("if-none-match", answer.header("etag")));
    assert_eq!(asked(&assets, again).await.status, StatusCode::NOT_MODIFIED);
}

#[actix_web::test]
async fn parts_are_served_as_they_are_asked_for() {
    let home = Home::new("parts");
    let (assets, song) = (home.assets(), a_song());
    let url = assets.keep(&song, "audio/wav").unwrap();
    let tag = asked(&assets, get(&url)).await.header("etag").to_owned();
    for (range, first, last) in [
        ("bytes=0-3", 0, 3),
        ("bytes=65530-65545", 65_530, 65_545),
        ("bytes=399990-", 399_990, 399_999),
        ("bytes=-4", 399_996, 399_999),
    ] {
        let answer = asked(&assets, get(&url).insert_header(("range", range))).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(answer.body, song[first..=last], "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {first}-{last}/400000"));
        assert_eq!(answer.header("content-type"), "audio/wav");
    }
    let outside = asked(&assets, get(&url).insert_header(("range", "bytes=400000-"))).await;
    assert_eq!(outside.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(outside.header("content-range"), "bytes */400000");

    let part = || get(&url).insert_header(("range", "bytes=0-3"));
    let same = asked(&assets, part().insert_header(("if-range", tag))).await;
    assert_eq!(same.body.len(), 4);
    let other = asked(&assets, part().insert_header(("if-range", "\"another\""))).await;
    assert_eq!((other.status, other.body.len()), (StatusCode::OK, song.len()));
}

/// Connections are as many as files may be open: none of them may take a second one for as long as it likes.
#[cfg(target_os = "linux")]
#[actix_web::test]
async fn a_file_is_not_kept_open_for_whoever_reads_it_slowly() {
    let home = Home::new("slow");
    let assets = home.assets();
    let url = assets.keep(&vec![7; 1 << 20], "audio/mpeg").unwrap();
    let app = init_service(App::new().app_data(web::Data::new(assets)).configure(routes)).await;
    let response = call_service(&app, get(&url).to_request()).await;
    let mut body = std::pin::pin!(response.into_body());
    let first = std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await;
    assert_eq!(first.unwrap().unwrap().len(), 64 << 10);
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let held =
        open.filter_map(|entry| fs::read_link(entry.path()).ok()).find(|file| file.starts_with(&home.0));
    assert_eq!(held, None);
}

#[actix_web::test]
async fn only_names_that_we_gave_are_looked_for() {
    let home = Home::new("names");
    let assets = home.assets();
    let url = assets.keep(b"ID3", "audio/mpeg").unwrap();
    let name = url.rsplit('/').next().unwrap();
    fs::write(home.0.join("secret.mp3"), "secret").unwrap();
    fs::write(home.0.join("assets/hidden.mp3"), "hidden").unwrap();
    for path in [
        "/assets/../secret.mp3",
        "/assets/..%2Fsecret.mp3",
        "/assets/%2e%2e%2fsecret.mp3",
        "/assets/hidden.mp3",
        "/assets/.",
        "/assets/",
        "/assets/%00",
        &format!("/assets/{}", name.to_uppercase()),
        &format!("/assets/{}", name.replace(".mp3", ".part")),
        &format!("/assets/{}", name.replace(".mp3", ".wav")),
        &format!("/assets/{}.mp3", "0".repeat(32)),
        &format!("/assets/x/{name}"),
    ] {
        assert_eq!(asked(&assets, get(path)).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(asked(&assets, get(&url)).await.status, StatusCode::OK);
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let home = Home::new("full");
    let (unfinished, finished) = (home.0.join("a.part"), home.0.join("a.mp3"));
    // Everything that is written there meets a full disk.
    std::os::unix::fs::symlink("/dev/full", &unfinished).unwrap();
    let error = write_whole(&unfinished, &finished, b"ID3").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(fs::symlink_metadata(&unfinished).is_err() && !finished.exists());
}

#[test]
fn what_a_crash_left_unfinished_goes_at_the_next_start() {
    let home = Home::new("crash");
    let kept = home.assets().keep(b"ID3", "audio/mpeg").unwrap();
    fs::write(home.0.join("assets").join(format!("{}.part", "0".repeat(32))), "half").unwrap();
    home.assets();
    let names = home.names();
    assert!(names.len() == 1 && kept.ends_with(&names[0]), "{names:?}");
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let home = Home::new("blocked");
    fs::write(home.0.join("assets"), "a file where the folder should be").unwrap();
    home.assets().keep(b"ID3", "audio/mpeg").unwrap_err();
}

#[test]
fn only_audio_is_kept() {
    let home = Home::new("types");
    assert_eq!(home.assets().keep(b"<html>", "text/html").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert!(home.names().is_empty());
    home.assets().keep(b"ID3", "audio/mpeg").unwrap();
    assert_eq!(home.names().len(), 1, "and nothing unfinished beside it");
}
