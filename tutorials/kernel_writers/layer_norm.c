/* Layer normalization as plain loops over pointers to float. x, y, d_x, d_y are rows of d numbers, without gaps. */

#include <math.h>
#include <stddef.h>

void layer_norm_forward(size_t rows, size_t d, const float *x, const float *gain, const float *bias, float eps,
                        float *y, float *normalized, float *inverse_std)
{
    for (size_t r = 0; r < rows; r++) {
        const float *in = x + r * d;
        float *n = normalized + r * d;
        float mean = 0, variance = 0;
        for (size_t i = 0; i < d; i++)
            mean += in[i];
        mean /= d;
        /* two passes: mean(x^2) - mean(x)^2 has no digit left where the mean is large */
        for (size_t i = 0; i < d; i++)
            variance += (in[i] - mean) * (in[i] - mean);
        inverse_std[r] = 1 / sqrtf(variance / d + eps);
        for (size_t i = 0; i < d; i++) {
            n[i] = (in[i] - mean) * inverse_std[r];
            y[r * d + i] = n[i] * gain[i] + bias[i];
        }
    }
}

/* d_gain and d_bias hold zeros when they come in: every row adds to them. */
void layer_norm_backward(size_t rows, size_t d, const float *d_y, const float *gain, const float *normalized,
                         const float *inverse_std, float *d_x, float *d_gain, float *d_bias)
{
    for (size_t r = 0; r < rows; r++) {
        const float *d_out = d_y + r * d, *n = normalized + r * d;
        float through_mean = 0, through_variance = 0;
        for (size_t i = 0; i < d; i++) {
            d_bias[i] += d_out[i];
            d_gain[i] += d_out[i] * n[i];
            through_mean += d_out[i] * gain[i];
            through_variance += d_out[i] * gain[i] * n[i];
        }
        through_mean /= d;
        through_variance /= d;
        for (size_t i = 0; i < d; i++)
            d_x[r * d + i] = (d_out[i] * gain[i] - through_mean - n[i] * through_variance) * inverse_std[r];
    }
}
