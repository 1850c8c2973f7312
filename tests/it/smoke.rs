use crate::support::*;
use std::time::*;
async fn r(app: &mut App, what: &str) { let t = Instant::now(); let mut last=String::new(); loop { let rep = app.console(reqwest::Method::GET, "/readyz").await; if rep.status==200 {break;} let j=rep.json(); let s = j["reasons"].as_array().unwrap().iter().filter(|r| r["part"]=="accepting").map(|r| r["what"].to_string()).collect::<Vec<_>>().join(" | "); if s!=last { eprintln!("   {:?} {s}", t.elapsed()); last=s; } tokio::time::sleep(Duration::from_millis(20)).await; } eprintln!("{what} ready after {:?}", t.elapsed()); }
async fn up(app:&App) { while app.http.get(format!("http://{}/livez", app.console)).send().await.is_err() { tokio::time::sleep(Duration::from_millis(10)).await } }
#[test]
fn smoke() { run(async {
  let s = Servers::own().await;
  let mut app = App::start(s.clone()).await;
  for _ in 0..3 { app.kill9().await; let t = Instant::now(); app.run(); up(&app).await; eprintln!("live {:?}", t.elapsed()); r(&mut app, "kill9").await; tokio::time::sleep(Duration::from_secs(1)).await;}
  for _ in 0..2 { s.kill9_postgres().await; app.not_ready(SOON).await; s.start_postgres().await; r(&mut app, "pg").await; tokio::time::sleep(Duration::from_secs(1)).await;}
  for _ in 0..2 { let t=Instant::now(); s.kill9_rabbit().await; app.not_ready(SOON).await; s.start_rabbit().await; eprintln!("rabbit restart {:?}", t.elapsed()); r(&mut app, "rabbit").await; tokio::time::sleep(Duration::from_secs(1)).await;}
  for _ in 0..2 { s.kill9_rabbit().await; app.kill9().await;  s.start_rabbit().await; app.run(); up(&app).await; r(&mut app, "both").await; tokio::time::sleep(Duration::from_secs(1)).await;}
});}
