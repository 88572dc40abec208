//! Somebody who repeats each request until it is answered, whatever becomes of the program meanwhile.

use std::time::Duration;

use serde_json::Value;

use super::PATIENCE;
use super::harness::Person;
use super::harness::person::{Answer, client};

#[derive(Clone)]
pub struct Caller {
    pub person: Person,
    http: reqwest::Client,
}

impl Caller {
    pub fn new(url: &str, user: &str) -> Self {
        Self { person: Person::new(url, user), http: client() }
    }

    pub async fn create(&self, key: &str, wish: &Value) -> Answer {
        let url = format!("{}/v1/songs", self.person.url);
        self.until_answered(|| self.http.post(&url).header("Idempotency-Key", key).json(wish)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.person.url);
        self.until_answered(|| self.http.get(&url)).await
    }

    pub async fn song(&self, id: &str) -> Answer {
        self.get(&format!("/v1/songs/{id}")).await
    }

    pub async fn tell(&self, id: &str, what: &str, body: &Value) -> Answer {
        let url = format!("{}/v1/songs/{id}/{what}", self.person.url);
        self.until_answered(|| self.http.post(&url).json(body)).await
    }

    async fn until_answered(&self, request: impl Fn() -> reqwest::RequestBuilder) -> Answer {
        let asking = async {
            loop {
                if let Some(answer) = self.once(request()).await {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.expect("an answer in the end")
    }

    /// `None` where there was none, or it says to come back.
    async fn once(&self, request: reqwest::RequestBuilder) -> Option<Answer> {
        let request = request.bearer_auth(&self.person.token).timeout(Duration::from_secs(5));
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.ok().filter(|_| status != 503)?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Some(Answer { status, headers, body, text })
    }
}
