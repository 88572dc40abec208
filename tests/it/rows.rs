//! The database itself, as somebody sees it who gets at it from outside (OPS-8, SEC-3).

use serde_json::json;
use tokio_postgres::Client;

use crate::harness::person::{id, music};
use crate::harness::shared;

/// A connection that has become this role, with these claims.
async fn become_role(client: Client, role: &str, claims: &serde_json::Value) -> Client {
    client
        .execute("select set_config('request.jwt.claims', $1, false)", &[&claims.to_string()])
        .await
        .expect("claims");
    client.batch_execute(&format!("set role {role}")).await.expect("the role is there");
    client
}

async fn count(client: &Client, table: &str) -> Result<i64, String> {
    let counted = client.query_one(&format!("select count(*) from {table}"), &[]).await;
    counted
        .map(|row| row.get(0))
        .map_err(|error| error.as_db_error().map_or(String::new(), |db| db.message().to_owned()))
}

#[tokio::test]
async fn a_user_reads_their_own_rows_and_nobody_elses_and_writes_none() {
    let server = shared().await;
    let (mira, otto) = (server.person("mira"), server.person("otto"));
    for person in [&mira, &otto] {
        let song = person.order(music("a song")).await;
        person.until(&song, "ready").await;
    }
    let client = become_role(server.look().await, "authenticated", &json!({"sub": mira.user})).await;
    let tables = [
        ("profiles", 1),
        ("songs", 1),
        ("tasks", 1),
        ("song_variants", 2),
        ("credit_entries", 3),
        ("notifications", 1),
    ];
    for (table, rows) in tables {
        assert_eq!(count(&client, table).await, Ok(rows), "{table}");
    }
    assert!(count(&client, "song_events").await.is_ok_and(|events| events >= 3));
    for hidden in [
        "callback_inbox",
        "failed_jobs",
        "provider_refs",
        "nodes",
        "provider_costs",
        "refinery_schema_history",
    ] {
        assert!(
            count(&client, hidden).await.is_err_and(|error| error.contains("permission denied")),
            "{hidden}"
        );
    }
    for inside in ["select run from tasks", "select error, content_hash from songs", "select u from profiles"]
    {
        assert!(client.query(inside, &[]).await.is_err(), "{inside}");
    }
    let writes = [
        "update profiles set credits = 1000000",
        "update songs set last_viewed_at = now()",
        "delete from songs",
        "insert into credit_entries (user_id, amount, reason, balance) values ('x', 1, 'grant', 1)",
        "select grant_credits('x', 0, 1, null, 'x', 'x')",
        "select drop_days(0)",
    ];
    for write in writes {
        let refused = client.batch_execute(write).await.expect_err(write);
        assert!(
            refused.as_db_error().is_some_and(|db| db.message().contains("permission denied")),
            "{write}: {refused:?}"
        );
    }
    // Days are tables of their own, too.
    let day = "select relname::text from pg_class where relname like 'song_events_2%' limit 1";
    let day: String = client.query_one(day, &[]).await.unwrap().get(0);
    assert!(count(&client, &day).await.is_err());
}

#[tokio::test]
async fn without_claims_nothing_is_seen() {
    let server = shared().await;
    let song = server.person("mira").order(music("hidden")).await;
    for claims in [json!({}), json!({"sub": null}), json!([])] {
        let client = become_role(server.look().await, "authenticated", &claims).await;
        assert_eq!(count(&client, "songs").await, Ok(0), "{claims} {song}");
    }
    let client = server.look().await;
    client.batch_execute("set role authenticated").await.unwrap();
    assert_eq!(count(&client, "songs").await, Ok(0));
    client.batch_execute("set request.jwt.claims = 'no json'").await.unwrap();
    assert_eq!(count(&client, "songs").await, Ok(0));
}

#[tokio::test]
async fn a_share_link_shows_its_variant_and_nothing_else() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira.order(music("shared")).await;
    let made = mira.until(&song, "ready").await;
    let share = made["variants"][1]["share_token"].as_str().unwrap();
    let seen = "select song_id::text, variant_number from song_variants";
    for (name, value) in [
        ("songflight.share_token", share.to_owned()),
        ("request.jwt.claims", json!({"share_token": share}).to_string()),
        ("request.headers", json!({"x-share-token": share}).to_string()),
    ] {
        let client = become_role(server.look().await, "anon", &json!({})).await;
        assert!(client.query(seen, &[]).await.unwrap().is_empty());
        client.execute("select set_config($1, $2, false)", &[&name, &value]).await.unwrap();
        let rows = client.query(seen, &[]).await.unwrap();
        assert_eq!(rows.len(), 1, "{name}");
        assert_eq!((rows[0].get::<_, String>(0), rows[0].get::<_, i16>(1)), (id(&made), 2));
        for other in ["songs", "tasks", "profiles", "credit_entries", "song_events", "failed_jobs"] {
            assert!(count(&client, other).await.is_err(), "{other}");
        }
        client.execute("select set_config($1, 'nonsense', false)", &[&name]).await.unwrap();
        assert!(client.query(seen, &[]).await.unwrap().is_empty(), "{name}");
    }
    mira.delete(&format!("/v1/songs/{song}")).await;
    for role in ["anon", "authenticated"] {
        let client = become_role(server.look().await, role, &json!({"share_token": share})).await;
        assert!(client.query(seen, &[]).await.unwrap().is_empty(), "of a deleted song, to {role}");
    }
}

#[tokio::test]
async fn who_is_signed_in_sees_what_was_shared_beside_their_own_and_nothing_else_of_its_owner() {
    let server = shared().await;
    let (mira, otto) = (server.person("mira"), server.person("otto"));
    let mut made = Vec::new();
    for person in [&mira, &otto] {
        let song = person.order(music("shared")).await;
        made.push(person.until(&song, "ready").await);
    }
    let (shared, own) = (&made[0], &made[1]);
    let share = shared["variants"][1]["share_token"].as_str().unwrap();
    let seen = "select song_id::text, variant_number from song_variants order by song_id, variant_number";
    for (name, value) in [
        ("songflight.share_token", share.to_owned()),
        ("request.jwt.claims", json!({"sub": otto.user, "share_token": share}).to_string()),
        ("request.headers", json!({"x-share-token": share}).to_string()),
    ] {
        let client = become_role(server.look().await, "authenticated", &json!({"sub": otto.user})).await;
        let rows = async || -> Vec<(String, i16)> {
            let rows = client.query(seen, &[]).await.unwrap();
            rows.iter().map(|row| (row.get(0), row.get(1))).collect()
        };
        let mine = vec![(id(own), 1), (id(own), 2)];
        assert_eq!(rows().await, mine);
        client.execute("select set_config($1, $2, false)", &[&name, &value]).await.unwrap();
        let mut both = mine;
        both.push((id(shared), 2));
        both.sort();
        assert_eq!(rows().await, both, "{name}");
        assert_eq!(count(&client, &format!("songs where id = '{}'", id(shared))).await, Ok(0));
        for other in ["tasks", "lyrics_variants", "credit_entries", "notifications", "song_events"] {
            let theirs = format!("{other} where song_id = '{}'", id(shared));
            assert_eq!(count(&client, &theirs).await, Ok(0), "{other}");
        }
    }
}

#[tokio::test]
async fn the_service_reads_everything_and_resolves_dead_letters() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira.order(music("for operators")).await;
    mira.until(&song, "ready").await;
    let client = become_role(server.look().await, "service_role", &json!({})).await;
    for table in ["songs", "tasks", "callback_inbox", "failed_jobs", "provider_refs", "provider_costs"] {
        assert!(count(&client, table).await.is_ok(), "{table}");
    }
    client
        .batch_execute("update failed_jobs set resolved_at = now(), notes = 'seen' where false")
        .await
        .unwrap();
    for write in
        ["update failed_jobs set error = ''", "update profiles set credits = 5", "delete from failed_jobs"]
    {
        assert!(client.batch_execute(write).await.is_err(), "{write}");
    }
}

/// A table that a later migration makes is easily forgotten.
#[tokio::test]
async fn every_table_is_locked_and_its_owner_is_not_hindered() {
    let client = shared().await.look().await;
    let open = "select relname::text from pg_class
                 where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relrowsecurity";
    let open: Vec<String> = client.query(open, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(open.is_empty(), "lock them with `select lock_rows()` at the end of the migration: {open:?}");
    let hidden = "select relname::text from pg_class c
                   where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition
                     and not exists (select from pg_policies p
                                      where p.tablename = c.relname and p.policyname = 'service_rows')";
    let hidden: Vec<String> = client.query(hidden, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(hidden.is_empty(), "show them with `select show_rows()` at the end of the migration: {hidden:?}");
    let forced = "select count(*) from pg_class where relforcerowsecurity";
    assert_eq!(client.query_one(forced, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// Most programs do not own their server.
#[tokio::test]
async fn the_schema_goes_in_without_a_superuser() {
    let server = shared().await;
    let name = format!("plain_{}", songflight::id::fresh().simple());
    let look = server.look().await;
    look.batch_execute(&format!("create role {name} login")).await.unwrap();
    look.batch_execute(&format!("create database {name} owner {name}")).await.unwrap();
    let mut plain = server.setup.database.clone();
    plain.user(&name).dbname(&name);
    // With tasks of its own, as the program has.
    let migrated = tokio::task::spawn_blocking(move || {
        actix_web::rt::System::new().block_on(async { songflight::store::migrate(&plain).await })
    });
    assert!(migrated.await.unwrap().is_ok_and(|applied| applied >= 5));
    look.batch_execute(&format!("drop database {name}; ")).await.unwrap();
    look.batch_execute(&format!("drop role {name}")).await.unwrap();
}
