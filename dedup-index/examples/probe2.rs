use rackferry_dedup_index::*; use std::time::Instant; use std::hint::black_box;
use blake3::platform::Platform; use blake3::IncrementCounter;
fn best(n:usize, mut f: impl FnMut()) -> f64 { let mut b=f64::MAX; for _ in 0..n { let t=Instant::now(); f(); b=b.min(t.elapsed().as_secs_f64()); } b }
fn main(){
  let n=256usize; let mut s=blake3::Hasher::new().finalize_xof(); let mut pages=vec![[0u8;4096];n+8]; s.fill(pages.as_flattened_mut());
  let flat=pages.as_flattened(); let bytes=(n*4096) as f64/1e9; let key=[7u32;8];
  let mut pls=vec![Platform::portable(),Platform::detect()]; pls.push(Platform::avx2().unwrap()); pls.push(Platform::sse41().unwrap());
  for p in pls { 
   for stride in [1024usize, 4096, 4096+64, 4096+128] {
    let count = n*4096/1024; let mut out=[0u8;512];
    let lanes=16;
    let t=best(300,||{ 
      if stride==1024 { for g in 0..count/lanes { let inp:[&[u8;1024];16]=std::array::from_fn(|i| flat[(g*lanes+i)*1024..].first_chunk().unwrap()); p.hash_many(&inp,&key,0,IncrementCounter::No,16,1,2,&mut out);black_box(&out);} }
      else { for g in 0..n/lanes { for k in 0..4 { let inp:[&[u8;1024];16]=std::array::from_fn(|i| flat[(g*lanes+i)*4096.min(stride)+ i*(stride-4096)+k*1024..].first_chunk().unwrap()); p.hash_many(&inp,&key,0,IncrementCounter::No,16,1,2,&mut out);black_box(&out);} } }
    });
    println!("{p:?} stride {stride}: {:.2} GB/s", bytes/t);
   } }
  let t=best(300,||{black_box(blake3::hash(&flat[..n*4096]));}); println!("blake3::hash of 1 MiB {:.2}",bytes/t);
  let t=best(300,||for p in &pages[..n]{black_box(blake3::hash(p));}); println!("blake3::hash of pages {:.2}",bytes/t);
  let t=best(300,||for p in &pages[..n]{black_box(blake3::keyed_hash(&[1;32],p));}); println!("blake3::keyed_hash of pages {:.2}",bytes/t);
  let views:Vec<_>=pages[..n].iter().collect(); let h=PageHasher::new(&DomainKey([7;32]));let mut o=vec![];
  let t=best(300,||{o.clear();h.digest_batch(&views,&mut o)}); println!("digest_batch {:.2}",bytes/t);
}
