/* A program that has never heard of Python answers one file of vectors:  relu VECTORS ANSWERS

   VECTORS is the unzipped .npz, ANSWERS an empty folder. It reads input.x.npy and cotangent.0.npy, in float32, and writes
   output.0.npy and gradient.x.npy. An .npy file is a header (magic, version, 2 bytes of length in little-endian order, a line of
   text with dtype and shape), then the numbers. The answers have the dtype and shape of the input, so its header is theirs. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct npy {
    unsigned char *header;
    size_t header_size;
    float *numbers;
    size_t count;
};

static FILE *open_in(const char *folder, const char *name, const char *mode)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, mode);
    if (!file) {
        perror(path);
        exit(1);
    }
    return file;
}

static struct npy read_npy(const char *folder, const char *name)
{
    FILE *file = open_in(folder, name, "rb");
    fseek(file, 0, SEEK_END);
    size_t size = ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(size + 1);
    if (!bytes || fread(bytes, 1, size, file) != size || size < 10 || memcmp(bytes, "\x93NUMPY\x01", 7)) {
        fprintf(stderr, "%s: no .npy file of version 1\n", name);
        exit(1);
    }
    fclose(file);
    size_t header_size = 10 + bytes[8] + 256 * bytes[9];
    bytes[size] = 0;
    if (size < header_size || !strstr((char *)bytes + 10, "'<f4'")) {
        fprintf(stderr, "%s: expected float32\n", name);
        exit(1);
    }
    return (struct npy){bytes, header_size, (float *)(bytes + header_size), (size - header_size) / sizeof(float)};
}

static void write_npy(const char *folder, const char *name, struct npy like, const float *numbers)
{
    FILE *file = open_in(folder, name, "wb");
    fwrite(like.header, 1, like.header_size, file);
    fwrite(numbers, sizeof(float), like.count, file);
    if (fclose(file)) {
        perror(name);
        exit(1);
    }
}

int main(int count, char **arguments)
{
    if (count != 3) {
        fprintf(stderr, "relu VECTORS ANSWERS\n");
        return 2;
    }
    struct npy x = read_npy(arguments[1], "input.x.npy");
    struct npy d_y = read_npy(arguments[1], "cotangent.0.npy");
    float *y = malloc(x.count * sizeof(float) + 1), *d_x = malloc(x.count * sizeof(float) + 1);
    for (size_t i = 0; i < x.count; i++) {
        y[i] = x.numbers[i] > 0 ? x.numbers[i] : 0;
        d_x[i] = x.numbers[i] > 0 ? d_y.numbers[i] : 0;
    }
    write_npy(arguments[2], "output.0.npy", x, y);
    write_npy(arguments[2], "gradient.x.npy", x, d_x);
    return 0;
}
