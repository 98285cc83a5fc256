// A binary PPM (P6) without comments, 8 bits a channel, of any size: convert cat.jpg image.ppm
#pragma once

#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
    std::size_t height = 0, width = 0;
    std::vector<std::uint8_t> pixels;
};

inline Picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    Picture picture;
    int most = 0;
    file >> kind >> picture.width >> picture.height >> most;
    if (!file || kind != "P6" || most != 255 || picture.width == 0 || picture.height == 0 || picture.width > 32768 ||
        picture.height > 32768)
        throw std::runtime_error(path + " is not a binary PPM image with 8 bits a channel.");
    file.get();
    picture.pixels.resize(picture.height * picture.width * 3);
    file.read(reinterpret_cast<char*>(picture.pixels.data()), static_cast<std::streamsize>(picture.pixels.size()));
    if (!file) throw std::runtime_error(path + " ends too early.");
    return picture;
}
