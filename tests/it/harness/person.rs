//! Somebody with a token who uses the HTTP interface.

use jsonwebtoken::{EncodingKey, Header, encode};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use songflight::time::Clock;

use super::server::SECRET;
use super::{Socket, eventually, within};

#[derive(Clone)]
pub struct Person {
    pub url: String,
    pub user: String,
    pub token: String,
    http: Client,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Null where it is no JSON.
    pub body: Value,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// # Panics
    /// When the status is another one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// The end of a problem's type; checks that it is one.
    #[track_caller]
    pub fn problem(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        // A song's own status stands in its place (`api.md`).
        if status != 409 {
            assert_eq!(self.body["status"], status);
        }
        assert!(self.body["title"].is_string() && self.body["detail"].is_string(), "{}", self.text);
        let kind = self.body["type"].as_str().expect("a type");
        kind.rsplit('/').next().unwrap_or_default()
    }

    /// The pointers of all wrong fields, sorted.
    #[track_caller]
    pub fn pointers(&self) -> Vec<&str> {
        assert_eq!(self.problem(400), "invalid-input");
        let errors = self.body["errors"].as_array().expect("errors");
        let mut pointers: Vec<_> = errors.iter().filter_map(|error| error["pointer"].as_str()).collect();
        pointers.sort_unstable();
        pointers
    }
}

/// A client that keeps no connections, so that it may go from test to test.
pub fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().pool_max_idle_per_host(0).timeout(super::PATIENCE).build().expect("a client")
}

/// A token as another program would make it.
pub fn token(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::default(), claims, &key).expect("a token")
}

/// Unix seconds, so many from here.
pub fn in_seconds(seconds: i64) -> i64 {
    Clock.now().millis() / 1000 + seconds
}

impl Person {
    pub fn new(url: &str, user: &str) -> Self {
        let token = token(&json!({"sub": user, "iat": in_seconds(0), "exp": in_seconds(3600)}));
        Self { url: url.to_owned(), user: user.to_owned(), token, http: client() }
    }

    /// The same person with another token.
    pub fn with(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// The same person at a server that was started again.
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::PATCH, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    pub async fn create(&self, wish: Value) -> Answer {
        self.post("/v1/songs", wish).await
    }

    pub async fn create_with_key(&self, key: &str, wish: Value) -> Answer {
        answer(self.request(Method::POST, "/v1/songs").header("Idempotency-Key", key).json(&wish)).await
    }

    /// Creates a song that must be accepted; answers its id.
    pub async fn order(&self, wish: Value) -> String {
        id(&self.create(wish).await.expect(202))
    }

    pub async fn song(&self, id: &str) -> Value {
        self.get(&format!("/v1/songs/{id}")).await.expect(200)
    }

    /// Posts to one of a song's own routes.
    pub async fn tell(&self, id: &str, what: &str, body: Value) -> Answer {
        self.post(&format!("/v1/songs/{id}/{what}"), body).await
    }

    pub async fn credits(&self) -> f64 {
        self.get("/v1/me").await.expect(200)["credits"].as_f64().expect("a number")
    }

    /// A socket that follows all songs of this person.
    pub async fn socket(&self) -> Socket {
        Socket::open(self, json!([{"ch": "me"}])).await
    }

    /// Waits until a song is in this state, by asking.
    pub async fn until(&self, id: &str, status: &str) -> Value {
        eventually(&format!("the song to be {status}"), || async {
            let answer = self.get(&format!("/v1/songs/{id}")).await;
            if answer.status == 200 && answer.body["status"] == status {
                Ok(answer.body)
            } else {
                Err(answer.text)
            }
        })
        .await
    }
}

pub async fn answer(request: RequestBuilder) -> Answer {
    let response = within("an answer", request.send()).await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("a body");
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer { status, headers, body, text }
}

pub fn id(song: &Value) -> String {
    song["id"].as_str().expect("an id").to_owned()
}

/// A wish for music, straight.
pub fn music(prompt: &str) -> Value {
    json!({"mode": "music", "prompt": prompt})
}

/// A wish for lyrics first.
pub fn lyrics_first(prompt: &str) -> Value {
    json!({"mode": "lyrics_first", "prompt": prompt})
}
