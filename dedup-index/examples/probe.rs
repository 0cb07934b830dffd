use rackferry_dedup_index::*; use std::time::Instant; use std::hint::black_box;
fn best(n:usize, mut f: impl FnMut()) -> f64 { let mut b=f64::MAX; for _ in 0..n { let t=Instant::now(); f(); b=b.min(t.elapsed().as_secs_f64()); } b }
fn main(){
  for count in [256usize, 4096] {
  let mut s=blake3::Hasher::new().finalize_xof(); let mut pages=vec![[0u8;4096];count]; s.fill(pages.as_flattened_mut());
  let views:Vec<_>=pages.iter().collect(); let h=PageHasher::new(&DomainKey([7;32])); println!("{h:?}");
  let mut out=vec![]; let bytes=(count*4096) as f64/1e9;
  let a=best(2000,||for p in &pages{black_box(blake3::hash(p));}); let b=best(2000,||{out.clear();h.digest_batch(&views,&mut out)});
  println!("{count} pages: hash {:.2} GB/s batch {:.2} GB/s ratio {:.2}",bytes/a,bytes/b,a/b);
  }
}
