// The checksum that identifies a file.
#pragma once

#include <string>

namespace decalign {

/// SHA-256 in hexadecimal, as sha256sum prints it. Throws input_error naming the file if it cannot
/// be read.
std::string sha256_of(const std::string& path);

}  // namespace decalign
