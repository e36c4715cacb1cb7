#include "data/file_hash.h"

#include <openssl/evp.h>

#include <algorithm>
#include <memory>
#include <stdexcept>

#include "data/mapped_file.h"

namespace decalign {

std::string sha256_of(const std::string& path) {
  constexpr size_t kBlock = size_t(1) << 24;  // read and given back, so that little stays resident
  const MappedFile file(path);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        &EVP_MD_CTX_free);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  bool fine = context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  for (auto rest = file.bytes(); fine && !rest.empty();) {
    const auto block = rest.first(std::min(kBlock, rest.size()));
    fine = EVP_DigestUpdate(context.get(), block.data(), block.size()) == 1;
    file.release(block);
    rest = rest.subspan(block.size());
  }
  if (!fine || EVP_DigestFinal_ex(context.get(), digest, &size) != 1)
    throw std::runtime_error(path + ": SHA-256 failed");
  std::string text;
  for (unsigned i = 0; i < size; ++i)
    for (const int nibble : {digest[i] >> 4, digest[i] & 15}) text += "0123456789abcdef"[nibble];
  return text;
}

}  // namespace decalign
